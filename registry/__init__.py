"""Countersign's service: it keeps adapters, proves where they came from, and decides with people what may ship.

rules     what is allowed; pure
proof     how it is proven: canonical JSON, Merkle log, signatures
stats     numbers over bytes, fast
yamls     YAML with one meaning
views     frozen answers, by noun
blobs     content-addressed bytes; uploads and drafts: bytes on their way in
rooms     how much memory what strangers sent may take together
sandbox   where chat templates are looked at and run, apart from everything
db        how it is kept: tables, the store that alone opens transactions
commands  everything that changes the registry
queries   everything that can be asked
callers   who is calling
sequencer the transparency log's single writer
clock     time's door
api web   machines' door, people's door
client    the Python client; cli the command line on top of it; gateway the data plane
verifier  the offline verifier, with verifier_keeping beside it
"""
