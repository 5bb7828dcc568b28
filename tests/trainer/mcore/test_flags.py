"""Megatron's flags: who wins, what is unknown, how values become words. On a small parser shaped like Megatron's."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.mcore import cpu_device, flags
from sft_shards.trainer.model.hf_config import ModelShape

pytestmark = pytest.mark.unit


def parser() -> flags.Parser:
    made = flags.Parser(allow_abbrev=False, add_help=False)
    made.add_argument("--num-layers", type=int)
    made.add_argument("--hidden-size", type=int)
    made.add_argument("--micro-batch-size", type=int)
    made.add_argument("--lr", type=float)
    made.add_argument("--swiglu", action="store_true")
    made.add_argument("--no-rope-fusion", action="store_false", dest="rope_fusion")
    made.add_argument("--calculate-per-token-loss", action="store_true")
    made.add_argument("--attention_backend", type=str, default="auto")
    made.add_argument("--fancy", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--data-path", nargs="*")
    made.add_argument("--num-experts", type=int)
    made.add_argument("--disable-bias-linear", action="store_false", dest="add_bias_linear")
    made.add_argument("--norm-epsilon", type=float, default=1e-5)
    return made


def resolve(config: dict[str, Any] | None = None, *words: str, forced: dict[str, Any] | None = None) -> flags.Flags:
    return flags.resolve(parser(), config=config or {}, config_path="run.yaml", flags=words, forced=forced)


def test_the_command_line_wins_over_the_file_and_both_over_defaults() -> None:
    assert resolve().args.micro_batch_size == 1
    assert resolve({"micro-batch-size": 4}).args.micro_batch_size == 4
    assert resolve({"micro-batch-size": 4}, "--micro-batch-size", "8").args.micro_batch_size == 8
    assert (
        resolve({"micro-batch-size": 4}, "--micro-batch-size=8", forced={"micro-batch-size": 2}).args.micro_batch_size
        == 2
    )


def test_the_objective_is_per_token_unless_the_file_says_no() -> None:
    assert resolve().args.calculate_per_token_loss is True
    assert resolve({"calculate-per-token-loss": False}).args.calculate_per_token_loss is False


def test_values_become_words() -> None:
    found = resolve({"swiglu": True, "no-rope-fusion": False, "fancy": False, "data-path": ["a", "b"], "lr": -0.5})
    assert found.args.swiglu is True
    assert found.args.rope_fusion is True
    assert found.args.fancy is False
    assert found.args.data_path == ["a", "b"]
    assert found.args.lr == -0.5
    assert found.given == {"swiglu", "rope_fusion", "fancy", "data_path", "lr"}


def test_underscores_and_dashes_are_the_same_in_the_file() -> None:
    assert resolve({"attention-backend": "flash"}).args.attention_backend == "flash"


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        ({"num-layer": 2}, (), "run.yaml: unknown key 'num-layer'; did you mean 'num-layers'?"),
        ({"devise": "cpu"}, (), "run.yaml: unknown key 'devise'; did you mean 'device'?"),
        ({}, ("--hiden-size", "3"), "unknown Megatron flag --hiden-size; did you mean '--hidden-size'?"),
        ({}, ("--shards", "x"), "unknown Megatron flag --shards; --shards is an option of sft-train"),
        ({}, ("--num-layers", "two"), "Megatron's flags: argument --num-layers: invalid int value: 'two'"),
        ({}, ("stray",), "'stray' belongs to no flag"),
        ({"swiglu": 3}, (), "run.yaml: 'swiglu' is a switch"),
        ({"num-layers": "two"}, (), "run.yaml: argument --num-layers: invalid int value: 'two'"),
    ],
)
def test_what_is_refused(config: dict[str, Any], words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(config, *words)
    assert message in str(error.value)


SHAPE = ModelShape(
    path="m/config.json",
    flags={"num-layers": 2, "swiglu": False, "disable-bias-linear": True, "norm-epsilon": 1e-6, "num-experts": None},
    vocab_size=120,
    max_positions=64,
    window=None,
)


def with_shape(config: dict[str, Any] | None = None, *words: str, shape: ModelShape = SHAPE) -> flags.Flags:
    return flags.resolve(parser(), config=config or {}, config_path="run.yaml", flags=words, shape=shape)


def test_a_models_shape_becomes_flags_and_may_be_repeated() -> None:
    found = with_shape({"num-layers": 2, "norm-epsilon": 0.000001, "swiglu": False}, "--num-layers", "2", "--lr=1")
    assert (found.args.num_layers, found.args.add_bias_linear, found.args.norm_epsilon) == (2, False, 1e-6)
    assert found.given == {"num_layers", "norm_epsilon", "swiglu", "lr"}
    assert with_shape().args.swiglu is False


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        ({"num-layers": 3}, (), "run.yaml: --num-layers 3 contradicts m/config.json, by which --num-layers is 2"),
        ({}, ("--num-layers", "3"), "after --: --num-layers 3 contradicts m/config.json, by which --num-layers is 2"),
        ({}, ("--num-layers=3",), "leave it out"),
        ({"swiglu": True}, (), "run.yaml: --swiglu contradicts m/config.json, by which --swiglu is not to be set"),
        ({}, ("--num-experts=8",), "after --: --num-experts 8 contradicts m/config.json, by which --num-experts is"),
        (
            {"norm-epsilon": 1e-5},
            (),
            "--norm-epsilon 1e-05 contradicts m/config.json, by which --norm-epsilon is 1e-06",
        ),
    ],
)
def test_what_contradicts_the_model(config: dict[str, Any], words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as error:
        with_shape(config, *words)
    assert message in str(error.value)


def test_a_megatron_that_lacks_what_the_model_needs() -> None:
    for value in (None, False):
        with_shape(shape=dataclasses.replace(SHAPE, flags={"qk-layernorm": value}))
    with pytest.raises(UsageError, match="has no --qk-layernorm"):
        with_shape(shape=dataclasses.replace(SHAPE, flags={"qk-layernorm": True}))


def test_a_switch_that_the_device_cannot_do_is_taken_out() -> None:
    assert resolve({"swiglu": True}, forced={"swiglu": False}).args.swiglu is False
    assert resolve({}, "--swiglu", forced={"swiglu": False}).args.swiglu is False


def test_flags_that_this_megatron_lacks_are_not_forced_on_it() -> None:
    found = resolve(forced=cpu_device.FORCED)
    assert "--no-rope-fusion" in found.argv
    assert not any("gloo" in word for word in found.argv)
