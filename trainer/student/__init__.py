"""The student: building, one update, saving and restoring.

| file       | input              | does                                                   | output         |
|------------|--------------------|--------------------------------------------------------|----------------|
| device     | settings           | chooses device and precision; converts device errors   | settings       |
| model      | a timm name        | builds a network; checks that it takes the images      | `nn.Module`    |
| optim      | a network          | optimiser, schedule, moving average                    | timm's objects |
| checkpoint | the state of a run | writes and reads it as one file                        | `Checkpoint`   |
| student    | batches            | rehearses on a copy; performs updates; saves, restores | losses         |
| trained    | a checkpoint       | builds its student; exports weights                    | `Trained`      |
"""
