"""Countersign's trainer: makes and evaluates weights, on any machine with a URL and a token.

worker      leases work over REST, runs it in a child process, registers and reports the outcome
outputs     the versions that a training run publishes, each registered once
roots       roots, digests and facts, computed from the files that were used
job         the child process: one piece of work from files to files; it knows no registry
child       the child process as the worker sees it
lease       a lease, renewed beside the work it covers
loop        one recipe to trained weights, with save points and published steps
evaluate    one frozen suite to answers
probe       how far an adapter moves the logits of its base
engine      a small server with vLLM's serving API, for machines without vLLM
resident    a base in memory with any number of adapters on it
pack        PEFT's output to a clean bundle
tracking    reports to MLflow, which no other file imports
data        a data set version to training examples
model       a base model, and an adapter on it
bottleneck  bottleneck adapters, which PEFT does not have
cache       files of the registry on this machine's disk, by digest
device      where the work runs and at which precision, with reasons
memory      what the work costs
exits       the exit statuses that child and worker agree on
demo        the main job, typed as people would type it
"""
