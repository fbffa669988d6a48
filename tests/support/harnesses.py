"""Files as evaluation harnesses write them, with numbers of our own.

Their shape is that of lm-evaluation-harness 0.4.9 (``EvaluationTracker.save_results_aggregated``)
and 0.3, as published files have it.
"""

import json

from sparsity_report.study.schema import TABLES

SEVEN = {
    "boolq": 0.75, "rte": 0.625, "hellaswag": 0.5, "winogrande": 0.6875, "arc_easy": 0.71875,
    "arc_challenge": 0.375, "openbookqa": 0.3125,
}  # fmt: skip


def lm_eval(model="some/model", shots=0, scores=SEVEN):
    """One file of today: seven tasks, one with two metrics, a group, and filtered answers."""
    results = {
        task: {
            "alias": task, "acc,none": acc, "acc_stderr,none": 0.015625,
            **({"acc_norm,none": acc + 0.125, "acc_norm_stderr,none": 0.03125}
               if task == "hellaswag" else {}),
        }
        for task, acc in scores.items()
    }  # fmt: skip
    mmlu = {"acc,none": 0.25, "acc_stderr,none": 0.0078125, "alias": "mmlu"}
    results |= {
        "lambada_openai": {
            "alias": "lambada_openai", "perplexity,none": 5.5, "perplexity_stderr,none": 0.25,
            "acc,none": 0.5625, "acc_stderr,none": "N/A",
        },
        "gsm8k": {
            "alias": "gsm8k", "exact_match,strict-match": 0.125,
            "exact_match_stderr,strict-match": 0.0625, "exact_match,flexible-extract": 0.1875,
            "exact_match_stderr,flexible-extract": 0.0625,
        },
        "mmlu": mmlu,
        "mmlu_anatomy": {"alias": " - anatomy", "acc,none": 0.25, "acc_stderr,none": 0.03125},
        "ai2_arc": {" ": " ", "alias": "ai2_arc"},
    }  # fmt: skip
    tasks = [task for task in results if task not in {"mmlu", "ai2_arc"}]
    metrics = {
        task: {key.partition(",")[0] for key in results[task] if "," in key} for task in tasks
    }
    return {
        "results": results,
        "groups": {"mmlu": dict(mmlu)},
        "group_subtasks": {**{task: [] for task in tasks}, "mmlu": ["mmlu_anatomy"]},
        "configs": {
            task: {"task": task, "num_fewshot": shots, "metadata": {"version": 1.0},
                   "doc_to_text": "{{question}}\nAnswer:"}
            for task in tasks
        },
        "versions": {task: 0 if task == "rte" else 1.0 for task in tasks} | {"mmlu": 2},
        "n-shot": {task: 5 if task == "gsm8k" else shots for task in tasks},
        "higher_is_better": {
            task: {m: m != "perplexity" for m in sorted(metrics[task]) if "stderr" not in m}
            for task in tasks
        },
        "n-samples": {task: {"original": 1000, "effective": 1000} for task in tasks},
        "config": {
            "model": "hf", "model_args": f"pretrained={model},dtype=bfloat16", "limit": None,
            "model_num_parameters": 1000, "batch_size": "8", "bootstrap_iters": 100000,
        },
        "git_hash": "38bd7350", "date": 1723609592.0615375, "lm_eval_version": "0.4.9",
        "task_hashes": {}, "model_source": "hf", "model_name": model, "chat_template": None,
        "total_evaluation_time_seconds": "11.57",
    }  # fmt: skip


def old_lm_eval(model="some/model", scores=SEVEN):
    """One of before 0.4: no filters, one number of examples for all."""
    return {
        "results": {task: {"acc": acc, "acc_stderr": 0.015625} for task, acc in scores.items()}
        | {"mc_taco": {"em": 0.125, "f1": 0.3125}},
        "versions": dict.fromkeys(scores, 0) | {"mc_taco": 0},
        "config": {
            "model": "hf-causal-experimental",
            "model_args": f"pretrained={model},use_accelerate=True", "num_fewshot": 0,
            "batch_size": "auto", "no_cache": True, "limit": None, "description_dict": {},
        },
    }  # fmt: skip


def write(path, told):
    path.write_text(json.dumps(told), encoding="utf-8")
    return path


def padded(tasks):
    """Return rows of tasks with all columns of their table."""
    wide = tasks.reindex(columns=[*TABLES["tasks"]]).astype(object)
    return wide.where(wide.notna(), None)
