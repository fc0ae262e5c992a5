"""The operating system: processes, signals, open files, scratch folders.

| file        | does                                                                                 |
|-------------|--------------------------------------------------------------------------------------|
| signals     | signals that end a process run its `finally` blocks first                            |
| limits      | raises the number of open files; one line where files or memory are lacking          |
| scratch     | temporary folders that a later start removes if their process was killed             |
| processes   | worker processes that read ahead, and what their death becomes                       |
| fork_server | what the server of worker processes imports                                          |
"""
