"""What the resolvers of vLLM and SGLang ask of a hub, replayed with huggingface_hub.

From their sources: vllm/plugins/lora_resolvers/{hf_hub,filesystem}_resolver.py and
sglang/srt/lora/lora_config.py. They know no revisions, and compare the base by its name.
"""

from __future__ import annotations

from tests.api.conftest import Door
from tests.build import World
from tests.hub.conftest import Run

REPLAY = """
def lists(repo):
    names = api.list_repo_files(repo_id=repo)
    return {os.path.dirname(name) for name in names if name.endswith("adapter_config.json")}

def vllm(repo, served):
    # HfHubResolver.resolve_lora, then FilesystemResolver._get_lora_req_from_path.
    assert lists(repo) == {""}
    folder = snapshot_download(repo_id=repo, allow_patterns="*")
    config = json.load(open(os.path.join(folder, "adapter_config.json")))
    weights = os.path.isfile(os.path.join(folder, "adapter_model.safetensors"))
    return config["peft_type"] == "LORA" and weights and config["base_model_name_or_path"] == served

def sglang(repo):
    # LoRAConfig.get_lora_config and get_added_tokens_config.
    folder = snapshot_download(repo, allow_patterns=["*.json"])
    return json.load(open(os.path.join(folder, "adapter_config.json")))

def served(model):
    # vllm serve MODEL, and SGLang's --model-path: `main`, no revision.
    folder = snapshot_download(model, allow_patterns=["*.safetensors", "*.json"])
    return os.path.basename(folder)
"""


def test_what_resolvers_of_engines_ask_finds_one_version(
    door: Door, served: World, client: Run
) -> None:
    token, base = door.token(served.engineer), served.base.ref.replace("@", ".")
    line = f"{served.team}/adapter"
    out = client(
        "2.4",
        token,
        f"""{REPLAY}
base, line = {base!r}, {line!r}
config = sglang(line + ".v1")
out = {{
    "one version": vllm(line + ".v1", base),
    "the line": vllm(line, base),
    "by the line of the base": vllm(line + ".v1", base.rpartition(".")[0]),
    "named": config["base_model_name_or_path"],
    "commit": config["revision"],
    "served": served(base),
}}""",
    )
    assert (
        out
        == {
            "one version": True,
            "the line": True,
            "by the line of the base": False,  # another version of the base might be loaded
            "named": base,
            "commit": served.base.digest.removeprefix("sha256:")[:40],
            "served": served.base.digest.removeprefix("sha256:")[:40],
        }
    )
