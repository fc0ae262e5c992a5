"""The demo: `python -m pipelines.demo run`, which `make demo` calls.

| file | input | does | output |
|---|---|---|---|
| `stages` | folder | draws scenes, annotates them, trains two students | shards, `labels.zarr`, run folders |
| `result` | folder | compares the students, shows and draws a label map | table, `label_map.png` |
"""
