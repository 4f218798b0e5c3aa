"""What a task is, in the words of the papers: the instruction that stands before a query, or before both sides.

Sources: NV-Embed's published instructions for retrieval, STS and summaries; those of classification, clustering and
reranking are E5-Mistral's (Wang et al., https://arxiv.org/abs/2401.00368), to which NV-Embed's own refer. "a online"
and the like stand as they are there: a published model has learned them so.
"""

from __future__ import annotations

from embedsmith.errors import SettingsError, did_you_mean

OF_TASK = {
    "classification": "Classify the given text into its category",
    "clustering": "Identify the topic or theme of the given text",
    "sts": "Retrieve semantically similar text",
    "nli": "Given a premise, retrieve a hypothesis that is entailed by the premise",
    "reranking": "Given a question, retrieve passages that answer the question",
    "pairs": "Retrieve semantically similar text",
}
"""Task of `convert` -> its general instruction. The first two are ours: the papers word one for each data set."""

OF_DATA = {
    # Retrieval.
    "arguana": "Given a claim, retrieve documents that support or refute the claim",
    "climate-fever": "Given a claim about climate change, retrieve documents that support or refute the claim",
    "dbpedia": "Given a query, retrieve relevant entity descriptions from DBPedia",
    "fever": "Given a claim, retrieve documents that support or refute the claim",
    "fiqa": "Given a financial question, retrieve relevant passages that answer the query",
    "hotpotqa": "Given a multi-hop question, retrieve documents that can help answer the question",
    "msmarco": "Given a web search query, retrieve relevant passages that answer the query",
    "nfcorpus": "Given a question, retrieve relevant documents that answer the question",
    "nq": "Given a question, retrieve passages that answer the question",
    "quora": "Given a question, retrieve questions that are semantically equivalent to the given question",
    "scidocs": "Given a scientific paper title, retrieve paper abstracts that are cited by the given paper",
    "scifact": "Given a scientific claim, retrieve documents that support or refute the claim",
    "touche2020": "Given a question, retrieve passages that answer the question",
    "trec-covid": "Given a query on COVID-19, retrieve documents that answer the query",
    # Classification.
    "amazon-counterfactual": (
        "Classify a given Amazon customer review text as either counterfactual or not-counterfactual"
    ),
    "amazon-polarity": "Classify Amazon reviews into positive or negative sentiment",
    "amazon-reviews": "Classify the given Amazon review into its appropriate rating category",
    "banking77": "Given a online banking query, find the corresponding intents",
    "emotion": (
        "Classify the emotion expressed in the given Twitter message into one of the six emotions: anger, fear, joy, "
        "love, sadness, and surprise"
    ),
    "imdb": "Classify the sentiment expressed in the given movie review text from the IMDB dataset",
    "massive-intent": "Given a user utterance as query, find the user intents",
    "massive-scenario": "Given a user utterance as query, find the user scenarios",
    "mtop-domain": "Classify the intent domain of the given utterance in task-oriented conversation",
    "mtop-intent": "Classify the intent of the given utterance in task-oriented conversation",
    "toxic-conversations": "Classify the given comments as either toxic or not toxic",
    "tweet-sentiment": "Classify the sentiment of a given tweet as either positive, negative, or neutral",
    # Clustering.
    "arxiv-p2p": "Identify the main and secondary category of Arxiv papers based on the titles and abstracts",
    "arxiv-s2s": "Identify the main and secondary category of Arxiv papers based on the titles",
    "biorxiv-p2p": "Identify the main category of Biorxiv papers based on the titles and abstracts",
    "biorxiv-s2s": "Identify the main category of Biorxiv papers based on the titles",
    "medrxiv-p2p": "Identify the main category of Medrxiv papers based on the titles and abstracts",
    "medrxiv-s2s": "Identify the main category of Medrxiv papers based on the titles",
    "reddit": "Identify the topic or theme of Reddit posts based on the titles",
    "reddit-p2p": "Identify the topic or theme of Reddit posts based on the titles and posts",
    "stackexchange": "Identify the topic or theme of StackExchange posts based on the titles",
    "stackexchange-p2p": "Identify the topic or theme of StackExchange posts based on the given paragraphs",
    "twenty-newsgroups": "Identify the topic or theme of the given news articles",
    # Pairs, reranking, STS, summaries.
    "askubuntu": "Retrieve duplicate questions from AskUbuntu forum",
    "mind": "Retrieve relevant news articles based on user browsing history",
    "scidocs-reranking": "Given a title of a scientific paper, retrieve the titles of other relevant papers",
    "sprint-duplicate-questions": "Retrieve duplicate questions from Sprint forum",
    "stackoverflow-duplicates": "Retrieve duplicate questions from StackOverflow forum",
    "sts": "Retrieve semantically similar text",
    "summaries": "Given a news summary, retrieve other semantically similar summaries",
    "twitter": "Retrieve tweets that are semantically similar to the given tweet",
}
"""Data set -> its instruction."""


def instruction_for(name: str) -> str:
    """Return the instruction of a data set.

    >>> instruction_for("banking77")
    'Given a online banking query, find the corresponding intents'

    Raises:
        SettingsError: the papers have none under that name; gives the nearest.
    """
    if name not in OF_DATA:
        raise SettingsError(
            f'no instruction for "{name}"{did_you_mean(name, OF_DATA)}',
            hint=f"write one with --instruction, or name one of {', '.join(OF_DATA)}",
        )
    return OF_DATA[name]
