"""The data stage: sources -> records -> examples -> tokens -> packed shards.

1. `inputs`     which original files a build reads, with their hashes
2. `records`    reader rows -> records with stable ids; what is dropped is counted by reason
3. `sampling`   bottom-k by hash: one pass, bounded memory, the same rows for any number of workers
4. `examples`   record x template -> instruction, input, output
5. `tokenizer`  a published tokenizer, or a byte-level BPE trained on the examples
6. `tokens`     example -> input_ids and labels
7. `packing`    token rows -> rows of fixed length
8. `stage`      the same steps on Ray Data, from object storage to object storage

Beside them what tells of a build: `statistics`, `plots`, `ledger` and `hub` make the `card`; `describe` shows a task,
`preview` rows before a build, `diff` two builds.
"""
