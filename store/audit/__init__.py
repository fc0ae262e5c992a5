"""The audit: label maps compared with the dataset's labels, and statistics of the targets.

| file     | input              | does                                           | output                  |
|----------|--------------------|------------------------------------------------|-------------------------|
| figures  | a label group      | reads it in blocks, computes its figures       | figures of each image   |
| findings | figures of a group | adds them up, keeps the most suspicious images | one `Audit`             |
| report   | what was found     | puts it into words and tables                  | terminal                |
| maps     | images listed      | draws their label maps                         | drawings                |
| page     | findings, drawings | writes them as one page                        | HTML                    |
| index    | figures of a group | writes and reads an audit's files              | CSV, index for `browse` |
"""
