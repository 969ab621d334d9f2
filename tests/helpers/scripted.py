"""A tiny model that writes what it is told to, token by token, within lm-eval's own rules for stopping."""

import copy


def scripted(model, tokenizer, script):
    """A copy of `model` whose `generate` writes, for each prompt, the text whose key stands in the prompt.

    A value may be a function of how often its prompt was asked before. It stops where the criteria, the
    budget or the text's end say so, and fills rows that ended with the tokenizer's padding. `steps` gets the
    size of the batch for each token.
    """
    made = copy.copy(model)
    made.steps = []
    asked = {}

    def next_text(prompt):
        key = next(key for key in script if key in prompt)
        asked[key] = asked.get(key, -1) + 1
        return script[key](asked[key]) if callable(script[key]) else script[key]

    def generate(input_ids, max_length, stopping_criteria, pad_token_id, **_):
        import torch

        prompts = tokenizer.batch_decode(input_ids)
        ahead = [_ids(tokenizer, next_text(prompt)) for prompt in prompts]
        rows, done = input_ids, torch.zeros(len(input_ids), dtype=torch.bool)
        while rows.shape[1] < max_length and not done.all():
            step = [
                [some.pop(0) if some and not end else pad_token_id]
                for some, end in zip(ahead, done, strict=True)
            ]
            rows = torch.cat([rows, torch.tensor(step)], 1)
            for criterion in stopping_criteria:
                done = done | criterion(rows, None)
            done = done | torch.tensor([not some for some in ahead])
            made.steps.append(len(rows))
        return rows

    object.__setattr__(made, "generate", generate)
    return made


def _ids(tokenizer, text):
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
