"""Write down what torch.optim does, so that `make test` needs no torch: tests/data/torch_optim.json.

python tests/peers/record_torch_optim.py
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch_optim
import trajectories

MAX_NORM = 0.3
RECORD = Path(__file__).parent.parent / "data/torch_optim.json"


def main():
    norm, grads = torch_optim.clipped(trajectories.tensors(1), MAX_NORM)
    record = {
        "torch": torch.__version__,
        "defaults": {name: torch_optim.defaults(name) for name in trajectories.SHARED},
        "clip_grad_norm_": {"max_norm": MAX_NORM, "norm": norm, "grads": [g.ravel().tolist() for g in grads]},
        "trajectories": [
            {"name": name, "options": options, "first": first.tolist(), "last": last.tolist()}
            for name, options in trajectories.RUNS
            for first, last in [torch_optim.trajectory(name, options)]
        ],
    }
    lines = json.dumps(record, indent=1).replace(",\n    ", ", ").replace("[\n    ", "[").replace("\n   ]", "]")
    RECORD.write_text(lines + "\n")


if __name__ == "__main__":
    main()
