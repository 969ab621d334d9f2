"""What is right in the toy tasks."""


def right(doc, results):
    """Whether the answer that a filter left is the sum."""
    return {"acc": float(str(results[0]).strip() == str(doc["answer"]))}
