"""Models that are found, named and loaded; one clear line for those that are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: no model can be loaded")
pytest.importorskip("transformers", reason="transformers is not installed: no model can be loaded")

import tiny
import torch
import transformers

from factorlab.errors import InputError
from factorlab.eval.hf.devices import devices_of, find_device
from factorlab.eval.hf.model import HFModel
from factorlab.eval.hf.weights import (
    context_of,
    digest_of,
    ends_of,
    find_dtype,
    load,
    load_tokens,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(made, tmp_path):
    """A model's folder that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "spoilt"))


def one_line(run: Any) -> str:
    """The one line of the InputError that `run` raises."""
    with pytest.raises(InputError) as raised:
        run()
    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def gpus(monkeypatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_without_a_gpu_the_device_is_the_cpu(monkeypatch):
    gpus(monkeypatch, 0)
    assert find_device("auto") == CPU
    assert find_device("cpu") == CPU
    assert devices_of("auto") == devices_of("") == devices_of("cpu") == ["cpu"]
    for name in ("cuda", "cuda:1"):
        assert one_line(lambda name=name: find_device(name)) == (
            f"--device '{name}': torch sees no GPU here; leave --device away, or give --device cpu"
        )
    assert "torch sees no GPU here" in one_line(lambda: devices_of("cuda:0, cuda:1"))


def test_with_gpus_all_of_them_are_meant(monkeypatch):
    gpus(monkeypatch, 2)
    assert find_device("auto") == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda:1")
    assert devices_of("auto") == devices_of("cuda") == devices_of("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    assert devices_of("cuda:1") == ["cuda:1"]
    assert one_line(lambda: find_device("cuda:2")) == "--device 'cuda:2': there are 2 GPUs, counted from 0"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gpu", "--device 'gpu' is no device; give auto, cpu, cuda or cuda:0, cuda:1, ..."),
        ("cuda:x", "--device 'cuda:x' is no device; give auto, cpu, cuda or cuda:0, cuda:1, ..."),
        ("meta", "--device 'meta' cannot run a model; give auto, cpu or cuda"),
    ],
)
def test_what_is_no_device_is_said(name, text):
    assert one_line(lambda: find_device(name)) == text


def test_names_of_dtypes():
    assert find_dtype("auto") == "auto"
    assert [find_dtype(name) for name in ("bf16", "fp16", "fp32")] == [
        torch.bfloat16,
        torch.float16,
        torch.float32,
    ]
    assert one_line(lambda: find_dtype("int8")) == "--dtype 'int8' is unknown; give auto, bf16, fp16, fp32"


def change(folder: Path, name: str, old: bytes, new: bytes) -> None:
    content = (folder / name).read_bytes()
    assert old in content
    (folder / name).write_bytes(content.replace(old, new, 1))


def test_a_digest_is_of_all_that_changes_results(folder, made):
    before = digest_of(folder)
    assert before == digest_of(made), "where a model lies does not matter"
    assert len(before) == 40
    seen = {before}
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    seen.add(digest_of(folder))
    change(folder, "tokenizer.json", b"<eos>", b"<end>")
    seen.add(digest_of(folder))
    change(folder, "config.json", b'"hidden_act": "silu"', b'"hidden_act": "gelu"')
    seen.add(digest_of(folder))
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    seen.add(digest_of(folder))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    seen.add(digest_of(folder))
    (folder / "chat_template.jinja").rename(folder / "other.jinja")
    seen.add(digest_of(folder))
    (folder / "model-00002.safetensors").write_bytes(b"")
    seen.add(digest_of(folder))
    assert len(seen) == 8


def test_a_digest_is_not_of_what_lies_beside_a_model(folder):
    before = digest_of(folder)
    (folder / "README.md").write_text("A model.")
    (folder / "figure.png").write_bytes(b"1")
    (folder / ".gitattributes").write_text("* lfs")
    for hidden in (".cache/huggingface/download", ".git/objects"):
        (folder / hidden).mkdir(parents=True)
        (folder / hidden / "model.safetensors.metadata").write_text("abc")
        (folder / hidden / "0123").write_text("abc")
    assert digest_of(folder) == before


def test_files_that_trade_their_contents_are_another_model(tmp_path):
    digests = []
    for names in ("ab", "ba"):
        folder = tmp_path / names
        folder.mkdir()
        for name, content in zip(names, ("1", "2"), strict=True):
            (folder / name).write_text(content)
        digests.append(digest_of(folder))
    assert digests[0] != digests[1]


def load_here(path: Path) -> Any:
    return load(str(path), torch.float32, CPU, None, False)


def test_a_model_is_loaded_with_its_tokens_and_its_digest(made):
    model, tokens, revision = load_here(made)
    assert not model.training
    assert model.dtype == torch.float32
    assert revision == digest_of(made)
    assert tokens.context == 512
    assert ends_of(model, tokens.tokenizer) == {0}
    loaded = HFModel(str(made), device="cpu")
    assert loaded.facts.revision == revision
    assert (loaded.facts.dtype, loaded.facts.device, loaded.facts.context) == ("float32", "cpu", 512)
    assert loaded.facts.parameters == sum(p.numel() for p in model.parameters())


def test_tokens_that_end_a_text_are_those_of_the_tokenizer_and_of_the_settings(made):
    model, tokens, _ = load_here(made)
    for said, ends in (([5, 7], {0, 5, 7}), (5, {0, 5}), (None, {0})):
        model.generation_config.eos_token_id = said
        assert ends_of(model, tokens.tokenizer) == ends


def test_a_folder_that_is_not_there(tmp_path):
    for name in (str(tmp_path / "none"), "./none", "~/none", "a/b/c"):
        assert one_line(lambda name=name: load_tokens(name, None, False)) == (
            f"model '{name}' is no folder; give the folder of a model, or its name on the hub"
        )


def test_a_name_that_the_hub_does_not_know(monkeypatch):
    def refuse(*args, **rest):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nto load the files.")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    text = one_line(lambda: load_tokens("nobody/nothing", None, False))
    assert text.startswith(
        "the model of 'nobody/nothing' cannot be had: it is no folder here, and the hub said: We"
    )
    assert text.endswith("give the folder of a model, or a name that the hub knows")


def test_a_folder_without_a_configuration(tmp_path, folder):
    for path in (tmp_path, folder):
        (path / "config.json").unlink(missing_ok=True)
        assert one_line(lambda path=path: load_here(path)) == (
            f"'{path}' holds no config.json; it is no folder of a transformers model"
        )


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "no such model"}', "{}", ""])
def test_a_configuration_that_cannot_be_read(content, folder):
    (folder / "config.json").write_text(content)
    text = one_line(lambda: load_here(folder))
    assert "cannot be read" in text


def test_a_folder_without_tokenizer_files(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    text = one_line(lambda: load_here(folder))
    assert "tokenizer" in text


def test_a_tokenizer_that_cannot_be_read(folder):
    (folder / "tokenizer.json").write_text("{")
    assert "tokenizer" in one_line(lambda: load_here(folder))


def test_weights_that_are_not_there(folder):
    (folder / "model.safetensors").unlink()
    assert f"the weights of '{folder}' cannot be read" in one_line(lambda: load_here(folder))


@pytest.mark.parametrize("keep", [0, 4, 200, 20_000])
def test_weights_that_are_cut_short(keep, folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"the weights of '{folder}' cannot be read" in one_line(lambda: load_here(folder))


def test_weights_of_an_old_form_that_are_broken(folder):
    (folder / "model.safetensors").unlink()
    for content in (b"", b"not weights", b"PK\x03\x04 nor a zip file"):
        (folder / "pytorch_model.bin").write_bytes(content)
        assert f"the weights of '{folder}' cannot be read" in one_line(lambda: load_here(folder))


@pytest.mark.parametrize("kind", [*tiny.PACKED, *tiny.PLAIN])
def test_whole_weights_are_taken_as_such(kind, folder):
    for tied in (True, False):
        tiny.tiny(kind, tie_word_embeddings=tied).save_pretrained(folder)
        load_here(folder)


def test_weights_of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    assert f"the weights of '{folder}' cannot be read" in one_line(lambda: load_here(folder))


def test_weights_that_lack_a_layer(folder):
    # transformers fills what is missing with random numbers, and goes on.
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    text = one_line(lambda: load_here(folder))
    assert "model.layers.2" in text


def test_a_chat_template_that_is_missing_is_said(made):
    assert one_line(lambda: HFModel(str(made), device="cpu").chat("Hello")) == (
        "--chat: this model's tokenizer has no chat template; leave --chat away"
    )


def test_a_chat_template_is_filled(folder):
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<ai>{% endif %}"
    )
    assert HFModel(str(folder), device="cpu").chat("Hello") == "<user>Hello<ai>"


@pytest.mark.parametrize(
    ("kind", "settings", "said", "context"),
    [
        ("Llama", {"max_position_embeddings": 777}, 99, 777),
        ("GPT2", {"n_positions": 333}, None, 333),
        ("Mpt", {"max_seq_len": 555}, None, 555),
        ("Bloom", {}, 444, 444),  # ALiBi has no last position: what the tokenizer says
        ("Bloom", {}, int(1e30), 2048),  # transformers' "unlimited"
        ("Mamba", {}, None, 2048),
        ("Gemma3", {"text_config": {"max_position_embeddings": 888}}, None, 888),
    ],
)
def test_the_context_of_a_model(kind, settings, said, context):
    config = getattr(transformers, f"{kind}Config")(**settings)
    assert context_of(config, SimpleNamespace(model_max_length=said)) == context
