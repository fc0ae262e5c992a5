"""The program `relabel-train`: its commands, each of which opens its inputs, calls the trainer and prints.

| file             | does                                               |
|------------------|----------------------------------------------------|
| __main__         | `relabel-train run`, and the group of all commands |
| recipes          | complete settings by name                          |
| settings_command | `relabel-train settings`: a table of all settings  |
| evaluate_command | `relabel-train evaluate`: options                  |
| evaluate         | loads a network, evaluates it, formats the result  |
| export           | `relabel-train export`: weights as safetensors     |
| progress         | progress of training and evaluation                |
"""
