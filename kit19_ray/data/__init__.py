"""The data stage: sources -> records -> examples -> tokens -> packed shards.

What is decided, in pure modules:

    inputs       tasks with their quotas (`mixture`, `licences`), their files and the evaluation sets', hashed
    records      reader rows -> records with stable ids; what is dropped is counted by reason
    gates        copies of a text, with one answer or with two
    contamination   rows that hold an evaluation item, found by n-grams (`ngrams`)
    sampling     bottom-k by hash: one pass, bounded memory, the same rows for any number of workers
    duplicates   near duplicates by MinHash, band by band
    examples     record x template -> instruction, input, output
    tokenizer    a published tokenizer, or a byte-level BPE trained on the examples
    tokens       example -> input_ids and labels
    packing      token rows -> rows of fixed length

What is written, from object storage to object storage: `pool` (one task's records), `prepare` (its examples and
tokens), `build` (the mixture's files and shards); `steps` maps these on Ray Data, `stage` is the whole.

What tells of a build: `statistics`, `plots`, `ledger` and `hub` make the `card`; `listing` and `describe` show tasks,
`preview` rows before a build, `diff` two builds.
"""
