"""Wires the stages together into commands.

| command | file | input | does | output |
|---|---|---|---|---|
| `relabel-annotate` | `annotate/` | image shards, teacher | writes, imports and exports label maps | label store |
| `relabel-train` | `train/` | image shards, label store | trains, evaluates and exports a student | run folder |
| `relabel-store` | `store/cli/` | label store | shows, audits, verifies and merges it | text, pages |
| `python -m pipelines.demo` | `demo/`, `digits/` | | does all of it on scenes of digits | accuracies, a picture |
| `python -m pipelines.reproduce` | `reproduce/` | | runs the paper's ablation on such scenes | report, picture |

`start` is where the installed commands begin; `options` has the options that several of them take; `machine` describes
the machine that a measurement was made on.
"""

import sys

from pipelines.start import running_command, shadowed

if (_problem := shadowed(running_command())) is not None:
    if running_command():
        sys.exit(f"error: {_problem}")
    raise ImportError(_problem)
