"""Every limit on what a foreign file may announce, with its reason; beyond one is a refusal.

A limit is far above what exists and far below what keeps a machine busy: a file that announces
more is damaged, or made to do harm, and is told so before anything is built from it.
"""

#: Bytes of the header of a safetensors file: the most that the format's own library takes.
HEADER_BYTES = 100_000_000

#: Bytes of the header of a GGUF file, with the vocabulary that is in it: the largest known take
#: some tens of MB.
GGUF_HEADER_BYTES = 2**28

#: Facts that a GGUF file tells of its model; real ones tell a hundred.
GGUF_PAIRS = 2**16

#: Texts in the lists of a GGUF file: of a vocabulary of a million words, its words and merges.
GGUF_TEXTS = 2**22

#: Bytes of a JSON or text file beside the weights; the largest vocabularies take 40 MB.
TEXT_BYTES = 2**28

#: Bytes of a file of kept counts that are read: 65,536 magnitudes and 32,768 steps take 1.5 MB.
ENTRY_BYTES = 2**22

#: Bytes of a configuration; one with the names of 20,000 labels takes 2 MB.
CONFIG_BYTES = 2**24

#: Bytes of a saved study: a million modules in three variants take about as many.
STUDY_BYTES = 2**30

#: Bytes of a file of an evaluation harness; with the prompts of a thousand tasks it has some 10 MB.
RESULTS_BYTES = 2**26

#: Scores of tasks of a study; a leaderboard's file has a thousand.
RESULTS = 2**16

#: Lists in objects in lists … of a JSON file; configurations of models in models take ten.
NESTING = 64

#: Digits of a whole number in JSON: more than any 64-bit size has, and read at once.
DIGITS = 40

#: Characters of the name of a tensor; the longest known take 200.
NAME_LENGTH = 4096

#: Tensors of a checkpoint, all files together: opening them takes 50 µs and 2 kB each. The most
#: that a published one has are 300,000: a trillion parameters in GPTQ, four tensors a matrix.
TENSORS = 2**19

#: Modules with parameters in a study: comparing three variants of them takes 40 µs and 15 kB each,
#: saving them 110 µs and 20 kB. Of classes that transformers knows experts are one module; of the
#: others the most are 70,000.
MODULES = 2**17

#: Dimensions of a tensor: as many as torch and numpy have in common.
DIMENSIONS = 64

#: Values of one tensor: sizes and places in files are signed 64-bit numbers.
VALUES = 2**63 - 1

#: Values of all tensors of a model together: the largest published have 2⁴¹. Sixteen bytes a value,
#: as CSR takes of float64, are still exact in float64, in which NumPy adds by group.
ALL_VALUES = 2**48

#: Blocks, stages and layers, each kind, that a configuration may announce: each is built before
#: anything is compared; the deepest published Transformer has 1,000.
BLOCKS = 4096

#: Experts of a layer; the most that a model was published with are 2,048 (Switch-C) as modules.
EXPERTS = 65_536

#: Heads, groups, codebooks, channels of a convolution and the like.
HEADS = 65_536

#: Pixels of a side of a picture: each patch of some has a place that is computed.
PIXELS = 2**14

#: Rows or columns of a matrix: the widest published have 53,248 columns.
WIDTH = 2**24

#: Words of a vocabulary; the largest published one has a million.
VOCABULARY = 2**28

#: Positions of a context; the longest published is ten million.
POSITIONS = 2**27

#: Parameters that a model of a configuration without weights may have: 300,000 take seconds.
PARAMETERS = 300_000
