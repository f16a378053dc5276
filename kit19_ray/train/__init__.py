"""Packed shards -> sharded training on Ray Train and DeepSpeed -> a safetensors export that was loaded back.

plan      what the config and the data come to: steps, accumulation      pure
batches   which rows step t trains on, on which rank                     pure
schedule  the learning rate of step t                                    pure
loss      the sum of the labels' negative log-likelihoods                torch
engine    DeepSpeed: set up, step, save, restore                         a worker
loop      the steps between the first and the last                       a worker
export    full weights, written, loaded back and compared                a worker
metrics   metrics.jsonl and the bar that follows it                      worker and driver
stage     the run's prefix, Ray, the manifest                            the driver
"""
