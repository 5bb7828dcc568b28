"""Self-contained HTML pages: what a shard directory holds, and what a training run is about to see.

    tokens, loss mask ──masked_spans──▶ spans ──excerpt──▶ pieces ┐
    numbers ──Chart──▶ bars ──────────────────────────────────────┴─render──▶ one file of HTML

A page asks no server for anything and runs no script. Texts of other people are escaped by Jinja, and what would be
obeyed (bidirectional and control characters) is shown as an escape, as it is on a terminal. For example:

    from sft_shards.formats.pages.chart import Chart
    from sft_shards.formats.pages.page import render
    chart = Chart.of((3, 8, 1), ("1", "16", "32", "64"), title="Lengths", unit="tokens")
    print(chart.bars[1].words, len(render("report.html", title="An empty page", report=None)))
"""
