"""Countersign's trainer: makes and checks weights, on any machine with a URL and a token.

__main__, worker   lease work over REST, run it in a child process, register and report what came of
it job                the child process: one piece of work from files to files; knows no registry
loop               one recipe -> trained weights, with save points and published steps evaluate
one frozen suite -> answers engine             a small server speaking the serving subset of vLLM's
API pack               PEFT's output -> a clean bundle tracking           MLflow, and nothing else
knows it data, model        data set -> examples; base model -> a model with LoRA on it cache
registry inputs on this machine's disk, by digest device, memory     where it runs, at which
precision, and what it costs
"""
