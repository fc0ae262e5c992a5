"""Benchmarks and studies. `make bench` runs those of `listed`; each is a command of its own too.

| folder or file | does |
|---|---|
| `speed/` | measures speed and memory against peers and floors |
| `scale/` | measures a store of ImageNet-1k's size, and requests to a bucket |
| `studies/` | measures quality: targets, the audit, the order of samples |
| `figures/` | draws the figures of docs/explanation.md |
| `suite`, `listed`, `material`, `report` | run the benchmarks of `speed/` and write a report |
| `measure`, `stages` | measure in rounds, and in processes of their own |
| `stores`, `resample`, `map_reads` | make large stores, and read their label maps |
"""
