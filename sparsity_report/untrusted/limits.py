"""Limits on sizes that an untrusted file may announce, each with its reason.

Each limit is far above published models and far below sizes that exhaust a machine. A file that
announces more is damaged or malicious and is refused before anything is built from it.
"""

#: Bytes of a safetensors header: the limit of the library of the format.
HEADER_BYTES = 100_000_000

#: Bytes of the pickle in a PyTorch archive; a tensor takes about 200 of them. Parsed lists take 64
#: times their bytes.
PICKLE_BYTES = 2**23

#: Bytes in memory of all tensors of a pickle that are sparse or repeat values, unless
#: ``UNFOLDED`` times the file is more.
UNFOLDED_BYTES = 2**28

#: Bytes in memory of such tensors per byte of the file. A float32 matrix with 99.8 % zeros takes
#: 100 times its COO arrays.
UNFOLDED = 100

#: Bytes of a GGUF header with its vocabulary; the largest known take some tens of MB.
GGUF_HEADER_BYTES = 2**28

#: Metadata pairs of a GGUF file; published ones have about a hundred.
GGUF_PAIRS = 2**16

#: Texts in lists of a GGUF file: tokens and merges of a vocabulary of a million tokens.
GGUF_TEXTS = 2**22

#: Bytes of a JSON or text file beside the weights; the largest vocabularies take 40 MB.
TEXT_BYTES = 2**27

#: Bytes of a cached file of counts; 65,536 magnitudes and 32,768 steps take 1.5 MB.
ENTRY_BYTES = 2**22

#: Bytes of a configuration; one with the names of 20,000 labels takes 2 MB.
CONFIG_BYTES = 2**24

#: Bytes of a saved study: a million modules in three variants take about as many.
STUDY_BYTES = 2**30

#: Bytes of a results file of an evaluation harness; a thousand tasks with prompts take 10 MB.
RESULTS_BYTES = 2**26

#: Bytes of a logged sample: a document with its prompts and answers; long contexts take 1 MB.
SAMPLE_BYTES = 2**24

#: Documents of a task; the largest published tasks have 100,000.
DOCUMENTS = 2**20

#: Task scores of a study; the file of a leaderboard has a thousand.
RESULTS = 2**16

#: Nested lists and objects of a JSON file; configurations of nested models have ten levels.
NESTING = 64

#: Digits of an integer in JSON: more than any 64-bit size has.
DIGITS = 40

#: Characters of a tensor name; the longest known have 200.
NAME_LENGTH = 4096

#: Tensors of all files of a checkpoint; each takes 50 µs and 2 kB to open. The largest published
#: model has 300,000: a trillion parameters in GPTQ, with four tensors per matrix.
TENSORS = 2**19

#: Commas, colons and opening brackets of a JSON text; a value takes up to 130 bytes in memory for
#: each. A tensor of a safetensors header has twelve.
JSON_VALUES = 13 * TENSORS

#: Modules with parameters in a study. With three variants, each takes 40 µs and 15 kB to compare
#: and 110 µs and 20 kB to save. The largest models have 70,000, one per expert.
MODULES = 2**17

#: The same of a saved study; a module has about 100 in each of three variants.
STUDY_VALUES = 400 * MODULES

#: Dimensions of a tensor: the limit of torch and NumPy.
DIMENSIONS = 64

#: Values of one tensor: sizes and file offsets are signed 64-bit integers.
VALUES = 2**63 - 1

#: Values of all tensors of a model; the largest published have 2⁴¹. At 16 bytes per value, as in
#: CSR of float64, sums of bytes are still exact in float64, in which NumPy adds groups.
ALL_VALUES = 2**48

#: Blocks, stages or layers in a configuration, and numbers in a list for each; the deepest
#: published Transformer has 1,000.
BLOCKS = 4096

#: Experts of a layer; Switch-C has 2,048, the most of any published model.
EXPERTS = 65_536

#: Heads, groups, codebooks or channels of a convolution.
HEADS = 65_536

#: Pixels of a side of an image; some models compute the position of each patch.
PIXELS = 2**14

#: Rows or columns of a matrix: the widest published have 53,248 columns.
WIDTH = 2**24

#: Tokens of a vocabulary; the largest published one has a million.
VOCABULARY = 2**28

#: Positions of a context; the longest published is ten million.
POSITIONS = 2**27

#: Seconds for matching the regular expressions of an adapter; published ones take milliseconds.
PATTERN_SECONDS = 10

#: Parameter tensors of a model built from a configuration alone; Switch-C has 123,000.
PARAMETERS = 2**17
