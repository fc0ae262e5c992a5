"""The demo's data and its teacher: scenes of real handwritten digits, made on the spot.

Stages, in the order data moves:

| file | input | does | output |
|---|---|---|---|
| `pools` | scikit-learn's 1,797 digits, 8 x 8 | splits them into three disjoint pools | `DigitPool` |
| `backgrounds` | random generator | paints clutter that holds no digits; adds noise | image |
| `scenes` | seed, index, pool | places 1 to 4 digits, chooses one as the label | `Scene` |
| `shards` | split, counts, seed | encodes scenes with label, boxes and all labels | WebDataset tars |
| `teacher` | scenes with one digit, teacher pool | trains the demo's teacher | `teacher.safetensors` |
| `student` | settings, shards, label maps | trains a student to its end | checkpoints |
| `measure` | teacher, scenes of the val pool | scores whole images and digits' boxes | two accuracies |
"""
