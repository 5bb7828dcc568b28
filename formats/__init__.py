"""The formats that a conversation passes through: records, rendered text, shards.

    raw record ──records──▶ Conversation ──templates──▶ text with located turns      tokens, masks ──shards──▶ directory

For example:

    from sft_shards.formats.conversation import Conversation, Turn
    from sft_shards.formats.records import FieldMap, get
    record = {"instruction": "Name a colour.", "output": "Blue."}
    conversation = get("alpaca").read(record, FieldMap())
    turns = (Turn(role="user", content="Name a colour."), Turn(role="assistant", content="Blue."))
    print(conversation == Conversation(turns=turns))

`conversation` has the one form for every record format, `columnar` many text-only conversations in columns, `errors`
the kinds of error that a user can cause, and `reasons` why records are left out. Nothing else of ours is imported here.
"""
