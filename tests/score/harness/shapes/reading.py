"""How the task with a gap reads its sentences."""


def right(doc):
    return int(doc["answer"]) - 1


def beginnings(doc):
    before, _ = doc["sentence"].split("_")
    return [before + name for name in (doc["first"], doc["second"])]


def rest(doc):
    return doc["sentence"].split("_")[1]
