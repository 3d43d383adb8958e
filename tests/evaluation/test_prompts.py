"""Prompts of every kind of source, and what bad sources get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset import Dataset
from evaluation.prompts import KINDS, Prompt, dpg_questions, find_kind, geneval_metadata, read_prompts
from schemas.reasons import PromptReason
from schemas.shard_index import read_index

CATS = [
    {"tag": "counting", "include": [{"class": "cat", "count": 2}], "prompt": "a photo of two cats"},
    {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}], "prompt": "a photo of a red dog"},
]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def texts(found: list[Prompt]) -> list[str | None]:
    return [prompt.prompt for prompt in found]


def test_a_dataset_gives_the_caption_of_each_sample_under_its_image_id(small: Dataset) -> None:
    found = read_prompts(small.root)
    assert [prompt.prompt_id for prompt in found] == read_index(small.shards)["image_id"].to_pylist()
    assert [prompt.reference_image_id for prompt in found] == [prompt.prompt_id for prompt in found]
    mixed = dict(zip(*(small.read_table("mix")[name].to_pylist() for name in ("image_id", "caption")), strict=True))
    assert {prompt.prompt_id: prompt.prompt for prompt in found} == mixed


def test_a_text_file_gives_a_prompt_a_line(tmp_path: Path) -> None:
    found = read_prompts(written(tmp_path / "list.txt", "a cat\n  a dog, seen\u2028from above \n"))
    assert texts(found) == ["a cat", "a dog, seen\u2028from above"]
    assert all(len(prompt.prompt_id) == 16 and prompt.reason is None for prompt in found)


@pytest.mark.parametrize("name", ["list.txt", "list.jsonl", "list.csv"])
def test_a_line_that_is_added_changes_no_other_id(tmp_path: Path, name: str) -> None:
    def of(prompts: list[str]) -> dict[str | None, str]:
        rows = {".txt": "\n".join(prompts), ".jsonl": lines([{"prompt": text} for text in prompts])}
        rows[".csv"] = "\n".join(["prompt,category", *(f"{text}," for text in prompts)])
        found = read_prompts(written(tmp_path / name, rows[Path(name).suffix]))
        return {prompt.prompt: prompt.prompt_id for prompt in found}

    few, many = of(["a cat", "a dog"]), of(["an owl", "a dog", "", "a cat"])
    assert few == {text: many[text] for text in few}


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa cat\r\nein B\xc3\xa4r\r\n", "a cat\nein Bär".encode("utf-16")])
def test_byte_order_marks_and_windows_line_ends_are_read(tmp_path: Path, content: bytes) -> None:
    assert texts(read_prompts(written(tmp_path / "list.txt", content))) == ["a cat", "ein Bär"]


@pytest.mark.parametrize("name", ["list.txt", "list.jsonl", "list.csv", "color_val.txt", "meta_data.json"])
def test_a_latin_1_file_is_refused_with_the_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"line 3 is not utf-8 \(0xe4\); save the file as UTF-8"):
        read_prompts(written(tmp_path / name, b'"prompt"\r\n"a cat"\r\n"ein B\xe4r"\r\n'), "text")
    path = written(tmp_path / "x" / name, '{\n\n"prompt": "ein Bär"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="line 3 is not utf-8"):
        read_prompts(path)


def test_json_lines_give_ids_and_categories(tmp_path: Path) -> None:
    rows = [{"prompt": "a cat", "id": 7, "category": "animals"}, {"Prompt": "a cat", "prompt_id": "b", "seed": 3}]
    found = read_prompts(written(tmp_path / "list.jsonl", lines(rows)))
    assert found == [Prompt("7", "a cat", "animals"), Prompt("b", "a cat")]


@pytest.mark.parametrize(("name", "between"), [("list.csv", ","), ("list.tsv", "\t")])
def test_a_table_gives_ids_and_categories(tmp_path: Path, name: str, between: str) -> None:
    rows = [["id", "prompt", "category"], ["1", '"a cat, a ""big"" one\nin two lines"', "animals"], ["", "a dog", ""]]
    path = written(tmp_path / name, "\r\n".join(between.join(row) for row in rows))
    first, second = read_prompts(path)
    assert first == Prompt("1", 'a cat, a "big" one\nin two lines', "animals")
    assert (second.prompt, len(second.prompt_id), second.category) == ("a dog", 16, None)


@pytest.mark.parametrize("as_file", [False, True])
def test_mjhq_gives_the_ids_of_its_pictures(tmp_path: Path, as_file: bool) -> None:
    entries = {"ab12": {"prompt": "a cat", "category": "animals"}, "cd34": {"prompt": "a cat", "category": "art"}}
    path = written(tmp_path / "meta_data.json", json.dumps(entries))
    found = read_prompts(path if as_file else tmp_path)
    assert found == [Prompt("ab12", "a cat", "animals", "ab12"), Prompt("cd34", "a cat", "art", "cd34")]


@pytest.mark.parametrize("named", [".", "prompts", "prompts/evaluation_metadata.jsonl"])
def test_geneval_gives_its_tasks_as_categories_and_what_the_rules_need(tmp_path: Path, named: str) -> None:
    written(tmp_path / "prompts" / "evaluation_metadata.jsonl", lines(CATS))
    written(tmp_path / "prompts" / "generation_prompts.txt", "a photo of two cats\na photo of a red dog\n")
    source = tmp_path / named
    found = read_prompts(source)
    assert [(prompt.prompt, prompt.category) for prompt in found] == [(row["prompt"], row["tag"]) for row in CATS]
    assert geneval_metadata(source) == {prompt.prompt_id: row for prompt, row in zip(found, CATS, strict=True)}


def test_dpg_gives_a_prompt_a_file_and_its_questions(tmp_path: Path) -> None:
    written(tmp_path / "prompts" / "coco1.txt", "A long\nprompt.\n")
    written(tmp_path / "prompts" / "vrd2.txt", "Another one.")
    written(tmp_path / "prompts" / "._vrd2.txt", b"\0\xff")
    header = "item_id,proposition_id,dependency,tuple,question_natural_language"
    written(tmp_path / "dpg_bench.csv", f"{header}\r\nvrd2,1,0,entity - whole (cat),Is there a cat?\r\n")
    assert read_prompts(tmp_path) == [Prompt("coco1", "A long\nprompt."), Prompt("vrd2", "Another one.")]
    assert [question.text for question in dpg_questions(tmp_path)["vrd2"]] == ["Is there a cat?"]
    assert dpg_questions(tmp_path / "prompts") == dpg_questions(tmp_path)


def test_a_folder_of_lists_is_not_taken_for_dpg(tmp_path: Path) -> None:
    written(tmp_path / "prompts" / "list.txt", "a cat\na dog\n")
    with pytest.raises(ValueError, match="is no source of prompts that is known"):
        read_prompts(tmp_path)
    written(tmp_path / "prompts" / "list.txt", "a cat\n")
    assert read_prompts(tmp_path) == [Prompt("list", "a cat")]


def test_compbench_gives_the_category_in_the_name_of_the_file(tmp_path: Path) -> None:
    written(tmp_path / "color_val.txt", "a red book\n")
    written(tmp_path / "3d_spatial_val.txt", "a cat behind a red book\na red book\n")
    written(tmp_path / "color.txt", "a training prompt\n")
    found = read_prompts(tmp_path)
    assert [(prompt.category, prompt.prompt) for prompt in found] == [
        ("3d_spatial", "a cat behind a red book"),
        ("3d_spatial", "a red book"),
        ("color", "a red book"),
    ]
    assert [prompt.prompt_id for prompt in read_prompts(tmp_path / "color_val.txt")] == [found[2].prompt_id]


def test_a_blank_prompt_and_one_with_a_nul_are_rows_with_a_reason(tmp_path: Path) -> None:
    found = read_prompts(written(tmp_path / "list.txt", "a cat\n \u200b\na\0dog\n\nan owl"))
    assert texts(found) == ["a cat", None, None, None, "an owl"]
    assert [prompt.reason for prompt in found] == [None, PromptReason.BLANK, PromptReason.NUL, PromptReason.BLANK, None]
    assert [prompt.detail for prompt in found] == [None, "line 2", "line 3", "line 4", None]
    assert len({prompt.prompt_id for prompt in found}) == 5
    rows = [{"prompt": None, "id": "x"}, {"prompt": "a\0", "id": "y"}]
    found = read_prompts(written(tmp_path / "list.jsonl", lines(rows)))
    assert [(prompt.prompt_id, prompt.reason) for prompt in found] == [("x", "blank"), ("y", "nul")]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("list.txt", "a cat\nan owl\na  cat \n", "line 1 and line 3 hold the same prompt"),
        ("list.jsonl", lines([{"prompt": "a cat"}] * 2), "line 1 and line 2 hold the same prompt"),
        ("list.jsonl", lines([{"prompt": one, "id": 1} for one in "abc"]), "line 1 and line 2 have the same id, '1'"),
        ("list.csv", "id,prompt\n1,a\n2,b\n1,c\n", "line 2 and line 4 have the same id, '1'"),
        ("color_val.txt", "a\nb\na\n", "color_val.txt line 1 and color_val.txt line 3"),
        ("meta_data.json", '{"a": {"prompt": "x"}, "b": {}, "a": {"prompt": "y"}}', "entry 1 and entry 3 .*'a'"),
        ("list.jsonl", '{"prompt": "a"}\n\n{"prompt": "b"\n', "line 3 is not JSON"),
        ("list.jsonl", '{"prompt": "a"}\n[1]\n', "line 2 is no JSON object"),
        ("list.jsonl", '{"text": "a"}\n', "line 1 has no prompt; it has text"),
        ("list.jsonl", '{"prompt": "a", "Prompt": "b"}\n', "line 1 has two names that are one"),
        ("list.jsonl", '{"prompt": 5}\n', "line 1: its prompt is int, not text"),
        ("list.jsonl", '{"prompt": "a", "id": 1.5}\n', "line 1: its id is float, not text"),
        ("list.jsonl", '{"prompt": "a", "id": "x\\u0000"}\n', "line 1: its id, .* cannot be printed"),
        ("list.jsonl", '{"prompt": "a \\ud83d"}\n', "line 1: its prompt holds half of a character"),
        ("list.csv", 'prompt,id\na,1\n"b,2\nc,3\n', "line 3 is not CSV"),
        ("list.csv", "prompt,id\na cat, black,1\n", "line 2 is not CSV .3 cells for 2 columns"),
        ("list.csv", "prompt,prompt\na,b\n", "line 1 is not CSV .two columns of the name 'prompt'"),
        ("list.csv", "text,id\na,1\n", "line 2 has no prompt; it has text, id"),
        ("meta_data.json", "[1]", "cannot be read as MJHQ's"),
        ("list.txt", "", "holds no prompt"),
        ("list.parquet", "PAR1", "is no source of prompts .*dataset is .*compbench is "),
        ("list.txt", '{"prompt": "a cat"}\n', "may be jsonl or text; name its kind"),
        ("list.txt", "prompt\tcategory\na cat\tanimals\n", "may be csv or text; name its kind"),
    ],
)
def test_a_bad_source_is_refused_with_its_place(tmp_path: Path, name: str, content: str, named: str) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(ValueError, match=named) as refused:
        read_prompts(path)
    assert str(path) in str(refused.value)


def test_a_source_of_several_kinds_is_refused_until_one_is_named(tmp_path: Path) -> None:
    written(tmp_path / "meta_data.json", json.dumps({"a": {"prompt": "a cat", "category": "x"}}))
    written(tmp_path / "evaluation_metadata.jsonl", lines(CATS))
    with pytest.raises(ValueError, match="may be mjhq or geneval; name its kind"):
        find_kind(tmp_path)
    assert [prompt.prompt_id for prompt in read_prompts(tmp_path, "mjhq")] == ["a"]
    assert len(read_prompts(tmp_path, "geneval")) == 2


def test_an_unknown_kind_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"parti: no such kind of prompts; there are auto, {', '.join(KINDS)}"):
        read_prompts(written(tmp_path / "list.txt", "a cat"), "parti")


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_a_source_that_is_not_there_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="absent"):
        read_prompts(tmp_path / "absent", kind)


@given(st.lists(st.text().filter(lambda text: not set(text) & set("\r\n")), min_size=1))
def test_any_texts_come_back_from_json_lines(tmp_path_factory: pytest.TempPathFactory, prompts: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / "list.jsonl"
    rows = [{"prompt": text, "id": f"p{number}"} for number, text in enumerate(prompts)]
    path.write_text(lines(rows))
    for prompt, text in zip(read_prompts(path, "jsonl"), prompts, strict=True):
        assert prompt.prompt == text.strip() or prompt.reason in set(PromptReason)


@given(
    st.sampled_from([b'{"tag": "x", "include": [], "prompt": "a"}\n', b"id,prompt\n1,a\n", b'{"1": {"prompt": "a"}}']),
    st.binary(max_size=8),
    st.integers(0, 40),
    st.sampled_from([kind for kind in KINDS if kind not in ("dataset", "set")]),
)
def test_damaged_bytes_are_prompts_or_a_line_for_the_user(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, damage: bytes, at: int, kind: str
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "list"
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
    try:
        assert read_prompts(path, kind)
    except ValueError as error:
        assert str(path) in str(error)
