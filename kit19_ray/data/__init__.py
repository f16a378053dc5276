"""The data stage: sources -> records -> examples -> tokens -> packed shards.

`pipeline` is the chain, top to bottom, `steps` how its steps spread over Ray; `stage` finds what a config builds and
commits it. What the steps are made of:

    inputs          tasks with their quotas (`mixture`, `filters.licence_policy`), their files, hashed and in parts
    source_parts    a file in parts that many tasks read side by side
    records         reader rows -> records with stable ids, as rows of a table with a column `dropped`
    read_sources    the stream on Ray Data: file parts -> rows -> `checks` -> buckets (`shuffle`)
    record_pool     buckets -> records: copies leave (`filters.exact_duplicates`), the bottom k stay (`sampling`)
    filters         evaluation items, copies, near duplicates, licences
    rendering       records -> `examples`, in ranges of a hash
    tokenizer       a published tokenizer, or a byte-level BPE trained on the examples
    tokenize        examples -> tokens (`encoding`)
    export          a task's share of a mixture: examples, `rejects`, the paper's CSV
    shards          tokens -> packed rows (`packing`) -> shards
    ray_tasks       how steps run on Ray: names, memory, tries; `progress` of the stream

What tells of a build: `card`; `inspect` shows tasks, rows before a build, and what two builds differ in.
"""
