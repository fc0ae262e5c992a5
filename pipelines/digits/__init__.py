"""The demo's data and its teacher: scenes of real handwritten digits, drawn when they are needed.

Stages, in the order in which data moves:

| file | input | does | output |
|---|---|---|---|
| `backgrounds` | random generator | paints a background without digits; adds noise | image |
| `scenes` | seed, index, pool of digits | places 1 to 4 digits, chooses one as the label | `Scene` |
| `shards` | split, counts, seed | encodes scenes with label, boxes and all digits; reads these back | WebDataset tars |
| `teacher` | scenes with one digit, teacher pool | trains and measures the demo's teacher | `teacher.safetensors` |
| `student` | settings, shards, label maps | trains a student to its last epoch | checkpoints |
"""
