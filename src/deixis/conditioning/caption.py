"""Captions of pictures by BLIP-2, LLaVA-1.6 and InternVL3 (EVP section 3.4; Iris), many of them and resumably."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    GenerationConfig,
    InternVLForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LogitsProcessor,
)
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

from deixis.backbones.weights import name_some
from deixis.data.captions import Caption, Journal, Settings, file_sha256, journal_path
from deixis.devices import choose_device
from deixis.errors import DeixisError, InputError, ModelError, UsageError
from deixis.io import InputItem, printable, read_image
from deixis.processes import in_order
from deixis.types import RGB

Family = Literal["blip-2", "llava_next", "internvl"]

ONE_SENTENCE = (
    "Describe the image in one sentence: name the objects, where they are to each other, and how the scene is laid out."
)
"""What the models that answer questions are asked. Iris names LLaVA-1.6 and InternVL3-8B and wants objects, their
spatial relations and the layout; the wording is ours, and asks for one sentence because CLIP reads 77 tokens."""

PROMPTS: dict[Family, str] = {"blip-2": "", "llava_next": ONE_SENTENCE, "internvl": ONE_SENTENCE}
"""The default of each. BLIP-2 describes without being asked, as in EVP."""

_MODELS: dict[Family, Any] = {
    "blip-2": Blip2ForConditionalGeneration,
    "llava_next": LlavaNextForConditionalGeneration,
    "internvl": InternVLForConditionalGeneration,
}
_AGAIN = "copy the folder again from its source"


def family_of(folder: Path) -> Family:
    """The architecture that a folder's ``config.json`` states.

    Raises:
        ModelError: if it states none that is known.
    """
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stated = content["model_type"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(printable(path), f"names no architecture ({printable(error)})", _AGAIN) from error
    for family in get_args(Family):
        if stated == family:
            return cast(Family, family)
    remedy = f"pass a model of {', '.join(get_args(Family))}"
    if stated == "internvl_chat":
        remedy = "pass the version of it that transformers reads, whose name ends in -hf"
    raise ModelError(printable(path), f"names the architecture {printable(stated)}, which is unknown here", remedy)


def version_of(folder: Path) -> str:
    """``revision:…`` of a folder in the hub's cache, else ``sha256:…`` over the names and contents of its weights.

    Raises:
        ModelError: if there are no weights, or they cannot be read.
    """
    if folder.parent.name == "snapshots":
        return f"revision:{folder.name}"
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(printable(folder), "holds no *.safetensors", _AGAIN)
    whole = hashlib.sha256()
    try:
        for file in files:
            whole.update(f"{file.name} {file_sha256(file)}\n".encode())
    except OSError as error:
        raise ModelError(printable(folder), f"cannot be read ({error.strerror})", _AGAIN) from error
    return f"sha256:{whole.hexdigest()}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bar, and without its report of what is missing, which is checked here."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        enable_progress_bar()


class _Draw(LogitsProcessor):
    """Makes the choice of the likeliest token a draw: logits plus Gumbel noise are largest where a sample falls.

    Each picture has random numbers of its own, so that its words do not depend on its batch.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=one) for one in self._generators])
        return cast(torch.FloatTensor, scores.float() - (-uniform.log()).log().to(scores.device))


class Captioner:
    """A vision-language model that says what is in pictures.

    Weights are float32 on a CPU, and elsewhere as they are stored.

    Args:
        folder: of the model, as transformers saves it. No code of it is run.
        device: where to run.

    Attributes:
        family: its architecture.

    Raises:
        ModelError: if a file is missing, damaged or does not fit, or the architecture is unknown.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.family = family_of(folder)
        self._device = device
        try:
            with _quiet():
                model, report = _MODELS[self.family].from_pretrained(
                    folder,
                    dtype=torch.float32 if device.type == "cpu" else "auto",
                    local_files_only=True,
                    use_safetensors=True,
                    output_loading_info=True,
                )
                # Pillow's resizing everywhere: captions must not depend on whether torchvision is installed.
                if self.family == "internvl":
                    # Its whole processor reads films too, and cannot be built without torchvision.
                    self._images = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                        folder, backend="pil", local_files_only=True
                    )
                    self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                else:
                    cls = Blip2Processor if self.family == "blip-2" else LlavaNextProcessor
                    self._processor = cls.from_pretrained(folder, backend="pil", local_files_only=True)
                    self._tokenizer = self._processor.tokenizer
        except Exception as error:  # whatever a damaged file makes the library raise
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(printable(folder), f"cannot be loaded ({printable(why)})", _AGAIN) from error
        for what in ("missing_keys", "mismatched_keys"):
            if report[what]:  # the library would go on with random numbers in their place
                names = name_some(sorted(str(key) for key in report[what]))
                raise ModelError(printable(folder), f"has {what.replace('_', ' ')}: {names}", _AGAIN)
        self._teller: Any = self._tokenizer if self.family == "internvl" else self._processor
        if self.family != "blip-2" and not self._teller.chat_template:
            raise ModelError(printable(folder), "has no chat template", "copy chat_template.jinja from its source")
        self._tokenizer.padding_side = "left"  # what is generated follows the last token of each
        self._model = model.to(device).eval()
        stated = model.generation_config
        # Beams, temperatures and lengths that a model brings along would change what its captions mean.
        self._ends = {
            "bos_token_id": stated.bos_token_id,
            "eos_token_id": stated.eos_token_id,
            "pad_token_id": self._tokenizer.pad_token_id,
            "decoder_start_token_id": stated.decoder_start_token_id,
        }

    @torch.inference_mode()
    def __call__(
        self, pictures: Sequence[RGB], prompt: str, max_new_tokens: int, seeds: Sequence[int] | None = None
    ) -> list[str]:
        """A caption of each picture.

        Args:
            pictures: uint8 [H, W, 3] of any sizes.
            prompt: what is asked.
            max_new_tokens: length at which a caption ends at the latest.
            seeds: one for each picture, from which its words are drawn; None: each word is the likeliest.
        """
        inputs = self._inputs(list(pictures), prompt).to(self._device)
        for name, value in inputs.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                inputs[name] = value.to(self._model.dtype)
        ids = self._model.generate(
            **inputs,
            generation_config=GenerationConfig(**self._ends, max_new_tokens=max_new_tokens),  # type: ignore[no-untyped-call]
            logits_processor=None if seeds is None else [_Draw(seeds)],
        )
        if not self._model.config.is_encoder_decoder:
            ids = ids[:, inputs["input_ids"].shape[1] :]
        return [" ".join(text.split()) for text in self._tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _inputs(self, pictures: list[RGB], prompt: str) -> Any:  # noqa: ANN401 - the library's mapping
        if self.family == "blip-2":
            texts = [prompt] * len(pictures)
            return self._processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        asked: str = self._teller.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        if self.family == "llava_next":
            texts = [asked] * len(pictures)
            return self._processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        # As InternVLProcessor does: a picture is some tiles, and a tile some tokens.
        encoded = self._images(pictures, crop_to_patches=True, return_tensors="pt")
        words, tokens = self._tokenizer, self._model.config.image_seq_length
        places = [words.context_image_token * tokens * int(tiles) for tiles in encoded["num_patches"]]
        texts = [
            asked.replace(words.context_image_token, f"{words.start_image_token}{place}{words.end_image_token}")
            for place in places
        ]
        inputs = words(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        inputs["pixel_values"] = encoded["pixel_values"]
        return inputs


# ------------------------------------------------------------------------------------------- many pictures


@dataclass(frozen=True)
class _Job:
    """A picture to caption, and what it is called in the file."""

    path: Path
    image: str


@dataclass(frozen=True)
class Failure:
    """A picture that has no caption.

    Attributes:
        path: its file.
        error: why.
    """

    path: Path
    error: Exception


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        made: captions that are new.
        kept: captions that were there.
        failures: pictures without a caption.
    """

    made: int
    kept: int
    failures: list[Failure]


Made: TypeAlias = "list[Caption | Failure]"


def caption_pictures(
    items: Sequence[InputItem],
    roots: Sequence[str | os.PathLike[str]],
    out: Path,
    folder: Path,
    settings: Settings,
    *,
    batch: int,
    processes: int,
    device: str | None,
    max_pixels: int,
    advance: Callable[[], None] = lambda: None,
    fail: Callable[[Failure], None] = lambda _: None,
) -> Outcome:
    """Caption pictures into a Parquet file; those that it or its journal holds already, and are the same, stay.

    Args:
        items: the pictures, and inputs that are none.
        roots: what the command line named; pictures are called by their path inside them.
        out: the file.
        folder: of the model.
        settings: of the captions.
        batch: pictures at once.
        processes: that caption, each with the model; several share the GPUs.
        device: where to run; None: the GPUs if there are some, else the CPU.
        max_pixels: largest picture read.
        advance: called for each item done.
        fail: told of each that failed.

    Raises:
        UsageError: if the file was made with other settings, or two pictures would be called the same.
        DeixisError: if the file cannot be written or a process dies; captions made so far are kept.
    """
    choose_device(device)  # of the workers, which choose it again
    own = {out.absolute(), journal_path(out).absolute()}
    items = [item for item in items if item.path.absolute() not in own]
    failures: list[Failure] = []

    def lose(failure: Failure) -> None:
        failures.append(failure)
        fail(failure)
        advance()

    jobs = _jobs(items, roots)
    with closing(Journal(out, settings)) as journal:
        for item in items:
            if item.error is not None:
                lose(Failure(item.path, item.error))
        todo = []
        for job in jobs:
            if _unchanged(job, journal.rows):
                advance()
            else:
                todo.append(job)
        made = 0
        chunks = [todo[first : first + batch] for first in range(0, len(todo), batch)]
        with closing(_results(chunks, folder, settings, processes, device, max_pixels)) as results:
            for result in results:
                rows = [one for one in result if isinstance(one, Caption)]
                journal.add(rows)
                made += len(rows)
                for one in result:
                    if isinstance(one, Failure):
                        lose(one)
                    else:
                        advance()
        if journal.rows:
            journal.finish()
    return Outcome(made, len(jobs) - len(todo), failures)


def _jobs(items: Sequence[InputItem], roots: Sequence[str | os.PathLike[str]]) -> list[_Job]:
    folders = [Path(root) for root in roots if Path(root).is_dir()]
    jobs: dict[str, _Job] = {}
    for item in items:
        if item.error is not None:
            continue
        root = next((folder for folder in folders if item.path.is_relative_to(folder)), item.path.parent)
        name = os.fsencode(item.path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
        if name in jobs:
            raise UsageError(
                printable(item.path),
                f"would be called {printable(name)}, as {printable(jobs[name].path)} is",
                "caption the folders into files of their own",
            )
        jobs[name] = _Job(item.path, name)
    return list(jobs.values())


def _unchanged(job: _Job, rows: dict[str, Caption]) -> bool:
    row = rows.get(job.image)
    if row is None or not job.path.is_file():
        return False
    try:
        return file_sha256(job.path) == row.image_sha256
    except OSError:  # reading it as a picture will say why
        return False


def _results(
    chunks: Sequence[list[_Job]],
    folder: Path,
    settings: Settings,
    processes: int,
    device: str | None,
    max_pixels: int,
) -> Generator[Made, None, None]:
    """Captions and failures of one chunk after another."""
    if not chunks:
        return
    if processes == 1:
        captioner = Captioner(folder, choose_device(device))
        for chunk in chunks:
            yield _caption_chunk(captioner, chunk, settings, max_pixels)
        return

    def died(chunk: list[_Job]) -> DeixisError:
        remedy = "free memory or lower --processes or --batch, and run the command again to go on"
        return DeixisError(printable(chunk[0].path), "a captioning process died", remedy)

    work = partial(_caption_loaded, settings=settings, max_pixels=max_pixels)
    begin = partial(_load, folder, device, get_context("spawn").Value("i", 0))
    yield from in_order(work, chunks, processes, died, begin=begin)


def _gpu(number: int) -> str:
    return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


_loaded: Captioner | DeixisError | None = None


def _load(folder: Path, device: str | None, begun: Synchronized[int]) -> None:
    """A worker takes the model, on the GPU whose turn it is; what is wrong with it is told with its first result."""
    global _loaded
    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1
    try:
        _loaded = Captioner(folder, torch.device(device or _gpu(number)))
    except DeixisError as error:
        _loaded = error


def _caption_loaded(jobs: list[_Job], settings: Settings, max_pixels: int) -> Made:
    if isinstance(_loaded, DeixisError):
        raise _loaded
    assert _loaded is not None
    return _caption_chunk(_loaded, jobs, settings, max_pixels)


def _caption_chunk(captioner: Captioner, jobs: list[_Job], settings: Settings, max_pixels: int) -> Made:
    made: Made = []
    read: list[tuple[_Job, str, RGB]] = []
    for job in jobs:
        try:
            rgb = read_image(job.path, max_pixels=max_pixels).rgb
            read.append((job, file_sha256(job.path), rgb))
        except (DeixisError, OSError) as error:
            made.append(Failure(job.path, error))
    try:
        return made + _ask(captioner, read, settings)
    except Exception:
        # One picture that the model cannot take, or too many for the memory, must not cost the others.
        for one in read:
            try:
                made += _ask(captioner, [one], settings)
            except Exception as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())
                made.append(Failure(one[0].path, InputError(printable(one[0].path), f"has no caption ({why})", _SEE)))
        return made


_SEE = "try it alone; free memory if that is what is missing"


def _ask(captioner: Captioner, read: Sequence[tuple[_Job, str, RGB]], settings: Settings) -> list[Caption | Failure]:
    if not read:
        return []
    seeds = None
    if settings.seed is not None:
        seeds = [_seed(settings.seed, digest) for _, digest, _ in read]
    said = captioner([rgb for _, _, rgb in read], settings.prompt, settings.max_new_tokens, seeds)
    return [
        Caption(job.image, digest, words, settings.model, settings.model_version, settings.prompt, settings.seed)
        for (job, digest, _), words in zip(read, said, strict=True)
    ]


def _seed(seed: int, picture: str) -> int:
    """Of one picture's words: the same in any batch, process or order."""
    return int.from_bytes(hashlib.sha256(f"{seed} {picture}".encode()).digest()[:7], "big")
