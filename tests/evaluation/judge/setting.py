"""Small evaluations, and a chat server that judges two pictures as their colours have it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from aiohttp import web
from PIL import Image
from typer.testing import CliRunner, Result

from commands.front_door import app
from engine.dataset import Dataset
from engine.names import NOTHING
from schemas.strict import DUMPER, yaml
from schemas.tables import schema_of
from tests.captioning.chat_server import ChatServer, completion

FIRST, SECOND, TIE = "<the first image is better>", "<the second image is better>", "<the two images are tied>"
Reply = Callable[[int, int, str], web.StreamResponse | str]
"""What is said of the red channels of both pictures, in their order, and the question."""


def redder(first: int, second: int, question: str) -> str:
    verdict = FIRST if first > second else SECOND if second > first else TIE
    return f"{verdict} The reason is <it is redder>."


class JudgeServer(ChatServer):
    """Judges; `asked` counts (red of the first, red of the second, whether for alignment, seed)."""

    def __init__(self, reply: Reply = redder, **options: Any) -> None:
        super().__init__(**options)
        self.reply = reply
        self.asked: Counter[Any] = Counter()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            body = await request.json()
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            *images, question = body["messages"][0]["content"]
            reds = []
            for image in images:
                data = base64.b64decode(image["image_url"]["url"].partition(",")[2])
                with Image.open(io.BytesIO(data)) as picture:
                    self.sizes.append(picture.size)
                    reds.append(round(picture.convert("RGB").getpixel((0, 0))[0] / 10) * 10)  # type: ignore[index]
            assert len(reds) == 2
            self.asked[(*reds, "caption" in question["text"], body["seed"])] += 1
            await asyncio.sleep(self.delay_s)
            said = self.reply(reds[0], reds[1], question["text"])
            return completion(said) if isinstance(said, str) else said
        finally:
            self.in_flight -= 1


def evaluation(folder: Path, models: Mapping[str, list[int | None]], prompts: list[str] | None = None) -> Path:
    """An evaluation whose models have drawn one picture a prompt, of that red; None is missing."""
    dataset, num = Dataset(folder), len(next(iter(models.values())))
    texts = prompts or [f"a field {number}" for number in range(num)]
    put(dataset, "prompts", [{"row_id": n, "prompt_id": f"p{n}", "prompt": text} for n, text in enumerate(texts)])
    for model, reds in models.items():
        rows, tar = [], folder / "samples" / f"{model}.tar"
        tar.parent.mkdir(parents=True, exist_ok=True)
        with tar.open("wb") as file:
            for number, red in enumerate(reds):
                row = {"row_id": number, "prompt_id": f"p{number}", "number": 0}
                if red is None:
                    rows.append(row | {"reason": "not_generated"})
                    continue
                drawn = io.BytesIO()
                Image.new("RGB", (24, 16), (red, 90, 30)).save(drawn, "PNG")
                place = {"file": f"samples/{model}.tar", "offset": file.tell(), "size": file.write(drawn.getvalue())}
                rows.append(row | place | {"pixel_sha256": hashlib.sha256(bytes([red])).hexdigest(),
                                    "reason": "constant"})  # fmt: skip
        put(dataset, f"pictures/{model}", rows)
    return folder


def put(dataset: Dataset, table: str, rows: list[dict[str, Any]]) -> None:
    dataset.commit_part(table, 0, NOTHING, pa.Table.from_pylist(rows, schema=schema_of(table)))


def recipe(tmp_path: Path, models: Mapping[str, Path], server: JudgeServer | None = None, **knobs: Any) -> list[str]:
    """The words of the command, once its recipe is written."""
    values: dict[str, Any] = {"out": str(tmp_path / "judged")}
    values["models"] = {name: {"evaluation": str(folder)} for name, folder in models.items()}
    values["judge"] = {"model": "m", "backoff_s": 0.01} | ({"url": server.url} if server else {})
    values["judge"] |= knobs.pop("judge", {})
    path = tmp_path / "judge.yaml"
    path.write_text(yaml.dump(values | knobs, Dumper=DUMPER, sort_keys=False))
    return ["judge", str(path)]


def run(arguments: list[str], status: int = 0) -> str:
    done: Result = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, (done.output, done.exception)
    return " ".join(done.output.split())


def rows(tmp_path: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Dataset(tmp_path / "judged").read_table(table).to_pylist()
    return found
