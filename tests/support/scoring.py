"""Log-probabilities of a text, computed alone in double precision."""

import numpy as np
import scipy.special
import torch


def log_probabilities(model, ids, window, stride):
    """Log-probabilities before each scored token, and these tokens."""
    before, rows, targets = 1, [], []
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        with torch.no_grad():
            logits = model(ids[None, begin:end]).logits[0].double().numpy()
        for place in range(max(before, begin + 1), end):
            rows.append(scipy.special.log_softmax(logits[place - begin - 1]))
            targets.append(int(ids[place]))
        before = max(before, end)
    return np.stack(rows), np.array(targets)
