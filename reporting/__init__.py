"""The lab report: runs what is missing, reads what is there, says what the numbers carry.

`work` runs scripts and goes on where they were stopped, `runs` reads the files they leave, `claims`
turns figures into sentences, `signs` and `fields` make chapters of `blocks`, which `markdown`,
`html` and `latex` write. Nothing of torch is imported here, so that flags are read before it is.
"""
