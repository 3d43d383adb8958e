"""Tiny networks as ONNX files, and a user's cache that holds them in place of published ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.weights import CENTERFACE, PPOCR_DETECTOR, Weight

FLOAT, INTS = 1, 7
"""Of a tensor's elements, and of an attribute."""


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message: a whole number, or a text, or a message or raw bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, values: Sequence[float], *shape: int) -> bytes:
    dims = b"".join(_field(1, size) for size in shape)
    return dims + _field(2, FLOAT) + _field(8, name) + _field(9, np.asarray(values, "<f4").tobytes())


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Sequence[int]) -> bytes:
    message = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(3, output) + _field(4, kind)
    for name, values in attributes.items():
        ints = b"".join(_field(8, value) for value in values)
        message += _field(5, _field(1, name) + ints + _field(20, INTS))
    return message


def _value(name: str, *shape: int | str) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT) + _field(2, dims)))


def _model(nodes: Sequence[bytes], tensors: Sequence[bytes], outputs: Sequence[str]) -> bytes:
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, tensor) for tensor in tensors) + _field(11, _value("x", 1, 3, "h", "w"))
    graph += b"".join(_field(12, _value(name, 1, "c", "h", "w")) for name in outputs)
    return _field(1, 7) + _field(7, graph) + _field(8, _field(2, 11))


def text_network() -> bytes:
    """The brighter a pixel, the surer it is text. OpenCV would merge the second layer and the third."""
    nodes = [
        _node("Conv", ["x", "w"], "bright", kernel_shape=[1, 1]),
        _node("ConvTranspose", ["bright", "one_by_one", "bias"], "a", kernel_shape=[1, 1], strides=[1, 1]),
        _node("BatchNormalization", ["a", "two", "zero", "zero", "one"], "b"),
        _node("Sigmoid", ["b"], "sigmoid_0.tmp_0"),
    ]
    tensors = [
        _tensor("w", [2, 2, 2], 1, 3, 1, 1),
        _tensor("one_by_one", [1], 1, 1, 1, 1),
        *(_tensor(name, [value], 1) for name, value in (("bias", 0.1), ("two", 2), ("zero", 0), ("one", 1))),
    ]
    return _model(nodes, tensors, ["sigmoid_0.tmp_0"])


def face_network() -> bytes:
    """A red cell is a face, exp(green / 64) cells high and exp(blue / 64) cells wide, around the cell's middle."""
    knobs = {"kernel_shape": [1, 1], "strides": [4, 4]}
    nodes = [
        _node("Conv", ["x", "red", "cold"], "a", **knobs),
        _node("Sigmoid", ["a"], "537"),
        _node("Conv", ["x", "size"], "538", **knobs),
        _node("Conv", ["x", "nowhere"], "539", **knobs),
    ]
    tensors = [
        _tensor("red", [1 / 16, 0, 0], 1, 3, 1, 1),
        _tensor("cold", [-8], 1),
        _tensor("size", [0, 1 / 64, 0, 0, 0, 1 / 64], 2, 3, 1, 1),
        _tensor("nowhere", [0] * 6, 2, 3, 1, 1),
    ]
    return _model(nodes, tensors, ["537", "538", "539"])


def keep(folder: Path, weight: Weight, network: bytes) -> Weight:
    """Put a network into the cache `folder` under the name of a weight. Returns the weight with its sha256."""
    path = folder / "sigma" / "weights" / weight.name / Path(weight.member).name
    path.parent.mkdir(parents=True)
    path.write_bytes(network)
    return replace(weight, sha256=hashlib.sha256(network).hexdigest())


def take_for_published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both networks are in a cache below `folder`, and the screens take them for the published ones."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    text, faces = keep(folder, PPOCR_DETECTOR, text_network()), keep(folder, CENTERFACE, face_network())
    for module in ("text_area", "screen"):
        monkeypatch.setattr(f"curation.scores.{module}.PPOCR_DETECTOR", text)
    for module in ("faces", "screen"):
        monkeypatch.setattr(f"curation.scores.{module}.CENTERFACE", faces)
