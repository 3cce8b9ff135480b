"""A corpus whose activations are several times larger than the memory that the process may use."""

import json
import sys
from pathlib import Path
from typing import Any

from soak.processes import start

MIB = 2**20
STUDY = """
import json, resource, sys, threading
from pathlib import Path
import psutil, torch, transformers
from archsae_core.data import random_model
from archsae_study.settings.config import configure
from archsae_study.engine.runs import Run
from archsae_study.engine.study import Study

root, allowed, tokens, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
shape = dict(hidden_size=width, head_dim=2, num_attention_heads=1, num_key_value_heads=1, intermediate_size=8)
config = transformers.LlamaConfig(**shape, num_hidden_layers=1, vocab_size=random_model.VOCABULARY)
torch.manual_seed(0)
transformers.LlamaForCausalLM(config).save_pretrained(root / "model")
random_model.tokenizer().save_pretrained(root / "model")
words = "the sea was calm and the wind from the north brought news of ships".split()
generator = torch.Generator().manual_seed(0)
draw = lambda: torch.randint(len(words), (200,), generator=generator)
lines = [" ".join(words[i] for i in draw()) for _ in range(tokens // 250)]
(root / "text.txt").write_text("\\n\\n".join(lines))
study = Study(configure({
    "preset": "smoke", "model": str(root / "model"), "text": str(root / "text.txt"), "layer": 0, "context": 256,
    "tokens": tokens, "anchor_tokens": 4096, "heldout_tokens": 4096, "kmeans_iterations": 3, "steps": 10,
}), root / "runs")
study.check()
usage = lambda: psutil.Process().memory_info()
private = lambda: usage().rss - usage().shared
before, peak, ended = private(), [0], threading.Event()
def watch():
    while not ended.wait(0.01):
        peak[0] = max(peak[0], private())
# Daemon: a run that fails must end the process instead of waiting for its watcher.
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
# The limit counts the mapped files of rows in full, since they are private: each may be mapped once, never read whole.
parts = (study.tokens.train, study.tokens.heldout)
mapped = sum((part.n_tokens - len(part.ids)) * width * 4 for part in parts)
data = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (data + mapped + allowed,) * 2)
study.run_folder(Run("ra-shared", 0, 10))
ended.set()
watcher.join()
size = sum(path.stat().st_size for path in root.glob("runs/store/activations/*/activations.safetensors"))
print(json.dumps({"rows": len(study.train_activations.kept), "size": size, "peak": peak[0] - before}))
"""


def run(folder: Path, *, allowed: int, tokens: int, width: int) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what is wrong: extraction, k-means on a sample, training and scoring within `allowed` bytes."""
    command = [sys.executable, "-c", STUDY, str(folder), str(allowed), str(tokens), str(width)]
    process = start(command)
    output, errors = process.communicate()
    if process.returncode:
        return [{"status": process.returncode}], [errors[-1500:]]
    found = json.loads(output.splitlines()[-1])
    ratio = found["size"] / allowed
    row = {"activations, MiB": found["size"] // MIB, "memory allowed, MiB": allowed // MIB, "ratio": f"{ratio:.1f}"}
    problems = [] if ratio >= 3 else [f"the activations are only {ratio:.1f} times the memory"]
    return [row | {"peak of private memory, MiB": found["peak"] // MIB, "rows": found["rows"]}], problems


LINE = """
import json, sys
import psutil
from pathlib import Path
from archsae_study.settings.config import ConfigError, configure
from archsae_core.data.corpus import load_text
try:
    load_text(configure({"preset": "smoke", "text": sys.argv[1]}).corpus)
except ConfigError as error:
    print(str(error))
"""


def one_line(path: Path, size: int) -> tuple[list[dict[str, Any]], list[str]]:
    """A text of one line of `size` bytes: refused as a single document, without a crash."""
    word = b"word " * 200_000
    with open(path, "wb") as file:
        for _ in range(size // len(word) + 1):
            file.write(word)
    process = start([sys.executable, "-c", LINE, str(path)])
    output, errors = process.communicate()
    refused = "1 documents are too few" in output
    row = {"bytes": path.stat().st_size, "error": output.strip().replace(str(path.parent), "…")}
    return [row], [] if refused else [f"status {process.returncode}: {errors[-500:]}"]
