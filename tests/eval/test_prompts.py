"""Prompts: equal to texts written by hand for made-up items, and to the data at hand in number and form."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from factorlab.errors import InputError
from factorlab.eval.answer_scores import score_answer
from factorlab.eval.instance import TextAnswer
from factorlab.eval.prompts import build_instances
from factorlab.eval.task import load_task, shipped_tasks

SHARED = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"

HEADER = "\n\n".join(
    [
        "以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。",
        "### 指示:\n",
    ]
)


def put(folder, name, content):
    """A file of a data folder: text, or rows as JSON lines."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    raw = content.encode("utf-8")
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)


def squad(articles):
    """Nested question set: title -> list of (context, question, id, answers)."""
    return json.dumps(
        {
            "data": [
                {
                    "title": title,
                    "paragraphs": [
                        {
                            "context": c,
                            "qas": [{"question": q, "id": i, "answers": [{"text": a} for a in texts]}],
                        }
                        for c, q, i, texts in items
                    ],
                }
                for title, items in articles.items()
            ]
        }
    )


def niilc(items):
    body = "".join(
        f"<question id='{i}'><text>{q}</text><answers>"
        + "".join(f"<answer>{a}</answer>" for a in answers)
        + "</answers></question>"
        for i, (q, answers) in enumerate(items)
    )
    return f"<?xml version='1.0' encoding=\"UTF-8\"?>\n<questions>{body}</questions>"


def llm_jp(instruction, shots, query):
    """llm-jp-eval's prompt: head, shots, query."""
    text = "\n\n### 入力:\n{}\n\n### 応答:\n{}"
    return HEADER + instruction, [text.format(x, y) for x, y in shots], text.format(query, "")


@pytest.fixture
def data(tmp_path):
    return tmp_path


def built(name, data, protocol="paper", **more):
    return build_instances(load_task(name, protocol), data, **more)


def check(name, data, head, shots, query, *, drawn=None, **fields):
    """The first instance is as written; its shots are those, in any order where they are drawn."""
    questions = built(name, data)
    first = questions.instances[0]
    assert first.head == head
    assert first.queries == ((query,) if isinstance(query, str) else query)
    if drawn is None:
        assert list(first.shots) == shots
    else:
        assert len(first.shots) == drawn
        assert len(set(first.shots)) == drawn
        assert set(first.shots) <= set(shots)
    assert first.prompts() == tuple(head + "".join(first.shots) + q for q in first.queries)
    assert first.prompts(1)[0] == "".join([head, *first.shots[-1:], first.queries[0]])
    for key, value in fields.items():
        assert getattr(first, key) == value, key
    return questions


def test_jcommonsenseqa(data):
    def row(i):
        return {
            "q_id": i,
            "question": f"問{i}？",
            **{f"choice{k}": f"{k}番{i}" for k in range(5)},
            "label": i % 5,
        }

    def text(i):
        return f"質問：問{i}？\n選択肢：0.0番{i},1.1番{i},2.2番{i},3.3番{i},4.4番{i}"

    put(data, "jcommonsenseqa/valid-v1.1.json", [row(100)])
    put(data, "jcommonsenseqa/train-v1.1.json.gz", [row(i) for i in range(10)])
    order = list(range(10))
    random.Random(42).shuffle(order)
    instruction = (
        "質問と回答の選択肢を入力として受け取り、選択肢から回答を選択してください。なお、回答は選択肢の番号（例：0）"
        "でするものとします。 回答となる数値をint型で返し、他には何も含めないことを厳守してください。"
    )
    expected = llm_jp(instruction, [(text(i), str(i % 5)) for i in order[:4]], text(100))
    check("jcommonsenseqa", data, *expected, gold="0", target="0", choices=(), cluster=None)


def test_jemhopqa(data):
    put(data, "jemhopqa/dev.json", json.dumps([{"question": "どちら？", "answer": "甲"}]))
    train = [{"question": f"問{i}", "answer": f"答{i}"} for i in range(6)]
    put(data, "jemhopqa/train.json", json.dumps(train))
    order = list(range(6))
    random.Random(42).shuffle(order)
    instruction = (
        "質問を入力とし、回答を出力してください。回答の他には何も含めないことを厳守してください。"
        "回答が'はい'と'いいえ'で答えることができる場合、'YES'と'NO'で答えてください。"
    )
    shots = [(f"質問：問{i}", f"答{i}") for i in order[:4]]
    check("jemhopqa", data, *llm_jp(instruction, shots, "質問：どちら？"), gold="甲")


def test_niilc(data):
    put(data, "niilc/NIILC-ECQA2015_test.xml", niilc([("無", ["-"]), ("色は", ["赤", "青"])]))
    put(
        data,
        "niilc/NIILC-ECQA2015_dev.xml.gz",
        niilc([("無", ["-"])] + [(f"問{i}", ["a", "b"]) for i in range(5)]),
    )
    order = list(range(5))
    random.Random(42).shuffle(order)
    instruction = (
        "質問に対する答えを出力してください。回答の他には何も含めないことを厳守してください。"
        "答えが複数の場合、コンマ（,）で繋げてください。"
    )
    expected = llm_jp(instruction, [(f"質問：問{i}", "a,b") for i in order[:4]], "質問：色は")
    check("niilc", data, *expected, gold="赤,青", target="赤,青")
    assert built("niilc", data, "fixed").instances[0].gold == ["赤,青", "赤", "青"]


def test_jsquad(data):
    put(data, "jsquad/valid-v1.1.json", squad({"梅": [("梅 [SEP] 文", "何？", "1", ["甲", "乙"])]}))
    pool = {"P": [(f"文{i}", f"問{i}", str(i), [f"答{i}", "x"]) for i in range(6)]}
    put(data, "jsquad/fewshot_pool_from_test-v1.3.json", squad(pool))
    order = list(range(6))
    random.Random(42).shuffle(order)
    instruction = (
        "質問に対する回答を文章から一言で抽出してください。回答は名詞で答えてください。 "
        "それ以外には何も含めないことを厳守してください。"
    )
    shots = [(f"文章：文{i}\n質問：問{i}", f"答{i}") for i in order[:4]]
    expected = llm_jp(instruction, shots, "文章：梅 [SEP] 文\n質問：何？")
    questions = check("jsquad", data, *expected, gold="甲", cluster="梅")
    assert "test part of JSQuAD 1.3" in questions.notes[0]
    assert built("jsquad", data, "fixed").instances[0].gold == ["甲", "乙"]
    put(data, "jsquad/train-v1.1.json", squad(pool))  # the official source is taken where it is there
    assert built("jsquad", data).notes == ()


def test_jmmlu(data):
    put(data, "jmmlu/csv/math.csv", '\ufeff1+1は？,1,2,3,4,B\n"長い\r\n問",1,2,3,4,A\n')

    def sample(i):
        return {"input": f"質問：問{i}\n選択肢：A.1,B.2,C.3,D.4", "output": "B"}

    scored = [
        {"input": "質問：1+1は？\n選択肢：A.1,B.2,C.3,D.4", "output": "B"},
        {"input": "質問：長い\n問\n選択肢：A.1,B.2,C.3,D.4", "output": "A"},
    ]
    put(data, "jmmlu/llmjpeval130_test_3541.json.gz", json.dumps({"samples": scored}))
    put(
        data,
        "jmmlu/llmjpeval130_fewshot_first32.json",
        json.dumps({"samples": [sample(i) for i in range(7)]}),
    )
    instruction = (
        "与えられた質問と選択肢から、最も適切な回答を選択してください。なお、回答には選択肢のアルファベット（例：A）"
        "のみを含め、他には何も含めないことを厳守してください。"
    )
    shots = [(sample(i)["input"], "B") for i in range(5)]
    questions = check(
        "jmmlu", data, *llm_jp(instruction, shots, scored[0]["input"]), gold="B", cluster="math"
    )
    assert len(questions.instances) == 2


def test_xlsum(data):
    put(data, "xlsum/test.jsonl", [{"text": "本文", "summary": "要旨"}])
    put(data, "xlsum/train.jsonl", [{"text": "記事", "summary": "短文"}])
    head, shot = "与えられたニュース記事を要約してください。\n\n", "ニュース記事:記事\n要約:短文\n\n"
    check("xlsum", data, head, [shot], "ニュース記事:本文\n要約:", gold="要旨")


def test_mgsm(data):
    put(data, "mgsm/mgsm_ja.tsv", "卵は何個？\t2,125\n次は？\t3\n")
    exemplars = [
        {
            "question": f"問題：問{i}",
            "answer": f"ステップごとの答え：式{i}。答えは{i}です。",
            "answer_number": i,
        }
        for i in range(8)
    ]
    put(data, "mgsm/exemplars_ja.jsonl", exemplars)
    shots = [f"問題：問{i}\nステップごとの答え：式{i}。答えは{i}です。\n\n" for i in range(8)]
    query = "問題：卵は何個？\nステップごとの答え："
    check("mgsm", data, "", shots, query, drawn=4, gold="2125", shared_item_id="gsm8k:0")


@pytest.mark.parametrize(
    ("name", "pair", "src", "ref"), [("en_ja", "enja", "en", "ja"), ("ja_en", "jaen", "ja", "en")]
)
def test_wmt20(data, name, pair, src, ref):
    put(data, f"wmt20/vat_newstest2020-{pair}-src.{src}.txt", "".join(f"s{i}\n" for i in range(7)))
    put(data, f"wmt20/vat_newstest2020-{pair}-ref.{ref}.txt", "".join(f"r{i}\n" for i in range(7)))
    names = ("English", "Japanese") if src == "en" else ("Japanese", "English")
    text = names[0] + " phrase: s{}\n" + names[1] + " phrase:"
    shots = [text.format(i) + f" r{i}\n\n" for i in range(1, 7)]
    check(f"wmt20_{name}", data, "", shots, text.format(0), drawn=4, gold="r0", target="r0")
    assert "test items" in built(f"wmt20_{name}", data, "fixed").notes[1]
    put(data, f"wmt20/newsdev2020-{pair}-src.{src}.txt", "".join(f"d{i}\n" for i in range(5)))
    put(data, f"wmt20/newsdev2020-{pair}-ref.{ref}.txt", "".join(f"e{i}\n" for i in range(5)))
    assert "phrase: d" in built(f"wmt20_{name}", data, "fixed").instances[0].shots[0]
    assert "phrase: s" in built(f"wmt20_{name}", data).instances[0].shots[0]


def test_openbookqa(data):
    def row(i):
        choices = [f"{letter}{i}" for letter in "wxyz"]
        return {"id": str(i), "question_stem": f"stem {i}", "choices": choices, "answerKey": "C"}

    put(data, "openbookqa/test.jsonl", [row(0)])
    put(data, "openbookqa/train.jsonl.gz", [row(i) for i in range(1, 9)])
    shots = [f"stem {i} y{i}\n\n" for i in range(1, 9)]
    choices = (" w0", " x0", " y0", " z0")
    check("openbookqa", data, "", shots, "stem 0", drawn=4, choices=choices, gold=2, target="y0")


def test_triviaqa(data):
    rows = [
        {
            "context": f"Question: Who is {i}?\nAnswer:",
            "answer": f"Name {i}",
            "aliases": [f"N{i}", f"Name {i}"],
        }
        for i in range(20)
    ]
    put(data, "triviaqa/triviaqa_sm_sub.jsonl", rows)
    shots = [f"Question: Who is {i}??\nAnswer: N{i}\n\n" for i in range(16)]
    query = "Question: Who is 16??\nAnswer:"
    questions = check("triviaqa", data, "", shots, query, drawn=4, gold=["N16", "Name 16"], target="Name 16")
    assert (len(questions.instances), questions.n_documents, questions.n_held_out) == (4, 20, 16)
    assert "16 of 20 items are held out" in questions.notes[1]
    fixed = built("triviaqa", data, "fixed").instances[0]
    assert fixed.queries == ("Question: Who is 16?\nAnswer:",)
    assert fixed.shots[0].endswith(
        "?\nAnswer: Name " + fixed.shots[0].split(" ")[3].partition("?")[0] + "\n\n"
    )


def test_hellaswag(data):
    item = {"ind": 1, "query": "Act: He", "choices": ["a", "b", "c", "d"], "gold": 3}
    put(data, "hellaswag/val_random1000.jsonl", [item])
    blocks = [f"Act{i}: one. Two {i}." for i in range(5)]
    put(data, "hellaswag/fewshot5_olmes_context.txt", "\n\n".join(blocks) + "\n")
    shots = [block + "\n\n" for block in blocks]
    questions = check(
        "hellaswag", data, "", shots, "Act: He", drawn=4, choices=(" a", " b", " c", " d"), gold=3
    )
    assert "OLMES" in questions.notes[1]


def test_hellaswag_from_the_raw_data(data):
    def row(i):
        return {
            "activity_label": "Roof",
            "ctx_a": f"A man {i} [header] stands.",
            "ctx_b": "he",
            "endings": ["goes [title] up", " [step]falls", "x  y", "sits"],
            "label": "1",
        }

    put(data, "hellaswag/hellaswag_val.jsonl", [row(0)])
    put(data, "hellaswag/hellaswag_train.jsonl", [row(i) for i in range(1, 9)])
    shots = [f"Roof: A man {i} stands. He falls\n\n" for i in range(1, 9)]
    choices = (" goes. up", " falls", " x y", " sits")
    check("hellaswag", data, "", shots, "Roof: A man 0 stands. He", drawn=4, choices=choices, gold=1)


def test_squad2(data):
    items = {
        "Big": [(f"context {i}", f"q{i}?", str(i), ["the a", "b"] if i else []) for i in range(9)],
        "Small": [(f"small {i}", f"s{i}?", str(i + 50), [] if i else ["yes"]) for i in range(6)],
    }
    put(data, "squad2/dev-half-v2.0.json", squad(items))
    text = "Title: {}\n\nBackground: {}\n\nQuestion: {}\n\nAnswer:"
    answers = ["yes"] + ["unanswerable"] * 5
    shots = [text.format("Small", f"small {i}", f"s{i}?") + f"  {answers[i]}\n\n" for i in range(6)]
    query = text.format("Big", "context 0", "q0?")
    questions = check(
        "squad2", data, "", shots, query, drawn=4, gold=[""], target="unanswerable", cluster="Big"
    )
    assert (len(questions.instances), questions.n_held_out) == (9, 6)
    assert questions.instances[1].gold == ["the a", "b"]
    assert "Answer:  " not in built("squad2", data, "fixed").instances[0].prompts()[0]


def test_xwino(data):
    rows = [
        {
            "sentence": f"The cat saw the dog {i} because _ ran.",
            "option1": "the cat",
            "option2": "the dog",
            "answer": a,
        }
        for i, a in enumerate("21212121")
    ]
    put(data, "xwino/xwinograd_en.jsonl", rows)

    def text(i):
        return f"The cat saw the dog {i} because "

    shots = [
        text(i) + ("the cat" if rows[i]["answer"] == "1" else "the dog") + " ran.\n\n" for i in range(1, 8)
    ]
    first = built("xwino", data).instances[0]
    check(
        "xwino",
        data,
        "",
        shots,
        (text(0) + "the cat", text(0) + "the dog"),
        drawn=len(first.shots),
        choices=(" ran.", " ran."),
        gold=1,
        target="the dog",
    )
    assert {len(i.shots) for i in built("xwino", data).instances} == {3, 4}
    assert {len(i.shots) for i in built("xwino", data, "fixed").instances} == {4}


def test_mmlu(data):
    def row(subject, i):
        return {"subject": subject, "question": f" q{i} ", "choices": ["1", "2", "3", "4"], "answer": 2}

    put(data, "mmlu/test.jsonl.gz", [row("high_school_art", 99)])
    put(data, "mmlu/dev.jsonl", [row(s, i) for i in range(5) for s in ("law", "high_school_art")])
    text = "q{}\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    head = "The following are multiple choice questions (with answers) about high school art.\n\n"
    shots = [text.format(i) + " C\n\n" for i in range(5)]
    choices = (" A", " B", " C", " D")
    check(
        "mmlu",
        data,
        head,
        shots,
        text.format(99),
        choices=choices,
        gold=2,
        cluster="high_school_art",
        target="C",
    )


def test_gsm8k(data):
    def row(i):
        return {"question": f"How many {i}?", "answer": f"It is <<{i}+0={i}>>{i}.\n#### {i}"}

    put(data, "gsm8k/test.jsonl", [row(1000)])
    put(data, "gsm8k/train.jsonl.gz", [row(i) for i in range(9)])
    shots = [f"Question: How many {i}?\nAnswer: It is <<{i}+0={i}>>{i}.\n#### {i}\n\n" for i in range(9)]
    query = "Question: How many 1000?\nAnswer:"
    check("gsm8k", data, "", shots, query, drawn=4, target="1000", shared_item_id="gsm8k:0")


def test_bbh(data):
    blocks = [f"Q: {i}?\nA: Let's think step by step.\nSo the answer is {i}." for i in range(3)]
    for task in ("add", "sub"):
        examples = [{"input": f"{task}?", "target": "(B)"}]
        put(data, f"bbh/bbh/{task}.json", json.dumps({"canary": "x", "examples": examples}))
        text = "A canary\n-----\n" + "\n\n".join([f"Do {task}.", *blocks])
        put(data, f"bbh/cot-prompts/{task}.txt", text)
    query = "Q: add?\nA: Let's think step by step.\n"
    questions = check(
        "bbh", data, "Do add.\n\n", [b + "\n\n" for b in blocks], query, gold="(B)", cluster="add"
    )
    assert "canary" not in questions.instances[1].prompts()[0]
    assert questions.instances[1].head == "Do sub.\n\n"


@pytest.mark.parametrize(
    ("name", "file", "prefix"),
    [
        ("humaneval", "humaneval/HumanEval.jsonl.gz", "HumanEval"),
        ("jhumaneval", "jhumaneval/jhuman-eval.jsonl.gz", "JHumanEval"),
    ],
)
def test_programs(data, name, file, prefix):
    prompt = 'A = """\nx\n"""def one():\n    """ 一 """\n'
    row = {
        "task_id": f"{prefix}/7",
        "prompt": prompt,
        "entry_point": "one",
        "canonical_solution": "    return 1\n",
    }
    put(data, file, [{**row, "test": "def check(f):\n    assert f() == 1\n"}])
    gold = {"prompt": prompt, "test": "def check(f):\n    assert f() == 1\n", "entry_point": "one"}
    check(name, data, "", [], prompt, gold=gold, target="    return 1\n", shared_item_id="humaneval:7")
    fixed = built(name, data, "fixed").instances[0]
    assert (fixed.queries[0] != prompt) == (name == "jhumaneval")
    assert fixed.gold["prompt"] == fixed.queries[0]


SMALL = """
benchmark: Small
language: en
chance: 0.0
data: {local: {files: [test.jsonl], format: jsonl}}
shots: {count: 3, draw: lm_eval, local: {files: [train.jsonl], format: jsonl}}
prompt: {query: "{{ q }}=", target: "{{ a }}", separator: ";"}
gold: a
scoring: text
decoding: {max_new_tokens: 3}
metric: {name: exact_match}
"""


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    put(tmp_path, "test.jsonl", [{"q": f"q{i}", "a": f"a{i}"} for i in range(20)])
    put(tmp_path, "train.jsonl", [{"q": f"t{i}", "a": f"b{i}"} for i in range(30)])
    return tmp_path


def test_a_limit_changes_no_prompt(small):
    task = load_task(small / "small.yaml")
    full = build_instances(task, small)
    assert len(full.instances) == 20
    for limit in (1, 7, 99):
        assert build_instances(task, small, limit).instances == full.instances[:limit]
    other = build_instances(task, small, seed=5).instances
    assert other != full.instances
    assert build_instances(task, small, seed=5).instances == other
    assert [i.instance_id for i in other] == [i.instance_id for i in full.instances]
    with pytest.raises(InputError, match=r"limit is 0; it must be 1 or more"):
        build_instances(task, small, 0)


def test_what_was_read_is_told(small):
    told = build_instances(load_task(small / "small.yaml"), small).sources
    assert [(source["role"], list(source["files"])) for source in told] == [
        ("items", ["test.jsonl"]),
        ("shots", ["train.jsonl"]),
    ]


def test_doublets_are_instances_of_their_own(small):
    put(small, "test.jsonl", [{"q": "q", "a": "a"}] * 3 + [{"q": "r", "a": "a"}])
    told = build_instances(load_task(small / "small.yaml"), small)
    assert len({i.instance_id for i in told.instances}) == 4
    assert told.notes == ("Small: 2 of its items are there more than once; each is an instance of its own",)


def test_wrong_data_is_one_line(small):
    task = load_task(small / "small.yaml")
    put(small, "test.jsonl", [{"q": "q", "a": 3}])
    with pytest.raises(
        InputError, match=r"Small, item 1: gold gives 3; it must be a text or a list of texts"
    ):
        build_instances(task, small)
    put(small, "test.jsonl", [{"q": "q"}])
    with pytest.raises(
        InputError, match=r"Small, item 1, gold: 'a' cannot be read: 'a' is undefined; the fields are q"
    ):
        build_instances(task, small)
    put(small, "train.jsonl", [{"q": "q", "a": "a"}])
    with pytest.raises(InputError, match=r"Small: there are 1 worked examples, fewer than the 3"):
        build_instances(task, small)
    (small / "train.jsonl").unlink()
    with pytest.raises(
        InputError, match=r"has no file 'train.jsonl', which worked examples of Small are read from"
    ):
        build_instances(task, small)


def test_wrong_choices_are_one_line(small):
    text = SMALL.replace("scoring: text\ndecoding: {max_new_tokens: 3}", "scoring: choices")
    text = text.replace("name: exact_match", "name: acc").replace('target: "{{ a }}"', "choices: c")
    (small / "small.yaml").write_text(text.replace("gold: a", "gold: g"), encoding="utf-8")
    put(small, "train.jsonl", [{"q": f"t{i}", "c": ["x", "y"], "g": 1} for i in range(3)])
    task = load_task(small / "small.yaml")
    for row, message in [
        (
            {"q": "q", "c": ["x", "y"], "g": 2},
            "gold gives 2; it must be the place of the right choice, 0 to 1",
        ),
        ({"q": "q", "c": ["x", "y"], "g": "1"}, "gold gives '1'"),
        ({"q": "q", "c": ["x"], "g": 0}, r"prompt.choices gives \['x'\]; it must be a list of two"),
    ]:
        put(small, "test.jsonl", [row])
        with pytest.raises(InputError, match=message):
            build_instances(task, small)


COUNTS = {
    "bbh": 6511,
    "gsm8k": 1319,
    "hellaswag": 1000,
    "humaneval": 164,
    "jcommonsenseqa": 1119,
    "jemhopqa": 120,
    "jhumaneval": 164,
    "jmmlu": 3541,
    "jsquad": 4442,
    "mgsm": 250,
    "mmlu": 14042,
    "niilc": 198,
    "openbookqa": 500,
    "squad2": 6078 - 208,
    "triviaqa": 3000 - 16,
    "wmt20_en_ja": 400,
    "wmt20_ja_en": 397,
    "xwino": 2325,
}
"""Instances of the data at hand (EVAL_PROTOCOLS.md), less those held out for worked examples."""

CLUSTERS = {"bbh": 27, "jmmlu": 53, "mmlu": 57, "jsquad": 59, "squad2": 15}

needs_shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared benchmarks are not at {SHARED}"),
]


def shared(function):
    for mark in needs_shared:
        function = mark(function)
    return function


@shared
@pytest.mark.parametrize("protocol", ["paper", "fixed"])
@pytest.mark.parametrize("name", sorted(COUNTS))
def test_the_data_at_hand(name, protocol):
    task = load_task(name, protocol)
    told = build_instances(task, SHARED)
    assert len(told.instances) == COUNTS[name] == told.n_documents - told.n_held_out
    assert len({i.instance_id for i in told.instances}) == COUNTS[name]
    clusters = {i.cluster for i in told.instances}
    assert len(clusters) == CLUSTERS.get(name, 1)
    count = task.shots.count if task.shots else 0
    least = 3 if (name, protocol) == ("xwino", "paper") else count
    assert {len(i.shots) for i in told.instances} <= {least, count}
    for instance in told.instances:
        query = instance.queries[0]
        assert all(query not in shot for shot in instance.shots) or name in ("bbh", "mmlu", "xwino")
        assert "canary" not in instance.head
        assert bool(instance.choices) == (task.scoring == "choices")
    assert {source["role"] for source in told.sources} <= {"items", "shots"}
    if protocol == "paper" and COUNTS[name] < 2000:
        assert build_instances(task, SHARED, 3).instances == told.instances[:3]


def test_every_shipped_task_has_a_count():
    assert sorted([*COUNTS, "xlsum"]) == shipped_tasks()


@shared
@pytest.mark.parametrize("name", ["jcommonsenseqa", "jemhopqa", "niilc"])
def test_shots_are_llm_jp_evals_own(name):
    """The file that llm-jp-eval's processor wrote, against the draw from the raw data."""
    file = json.loads((SHARED / name / "llmjpeval130_fewshot_first32.json").read_text(encoding="utf-8"))
    first = build_instances(load_task(name), SHARED, 1).instances[0]
    expected, shots, _ = llm_jp(
        file["instruction"], [(s["input"], s["output"]) for s in file["samples"][:4]], ""
    )
    assert list(first.shots) == shots
    assert first.head == expected


@shared
def test_jmmlu_instruction_and_shots():
    file = json.loads((SHARED / "jmmlu" / "llmjpeval130_fewshot_first32.json").read_text(encoding="utf-8"))
    first = build_instances(load_task("jmmlu"), SHARED, 1).instances[0]
    head, shots, _ = llm_jp(file["instruction"], [(s["input"], s["output"]) for s in file["samples"][:5]], "")
    assert (first.head, list(first.shots)) == (head, shots)


@shared
def test_mgsm_items_are_gsm8k_items():
    """The numbers of the shared items agree, but for the few that the translation changed."""
    gsm8k = {i.shared_item_id: i.target for i in build_instances(load_task("gsm8k"), SHARED).instances}
    mgsm = build_instances(load_task("mgsm"), SHARED).instances
    same = [gsm8k[i.shared_item_id].replace(",", "") == i.target for i in mgsm]
    assert sum(same) >= 248


@shared
def test_code_items_are_shared():
    english = {
        i.shared_item_id: i.document["test"]
        for i in build_instances(load_task("humaneval"), SHARED).instances
    }
    for instance in build_instances(load_task("jhumaneval"), SHARED).instances:
        assert english[instance.shared_item_id] == instance.document["test"]


@shared
def test_item_64_of_jhumaneval():
    for protocol, sound in (("paper", False), ("fixed", True)):
        item = build_instances(load_task("jhumaneval", protocol), SHARED).instances[64]
        program = item.queries[0] + item.target
        try:
            compile(program, "x", "exec")
        except SyntaxError:
            assert not sound
        else:
            assert sound


@shared
def test_xwino_has_the_studys_trap():
    lengths = [len(i.shots) for i in build_instances(load_task("xwino"), SHARED).instances]
    assert 0 < lengths.count(3) < 20


@shared
def test_xlsum_is_not_at_hand():
    with pytest.raises(
        InputError, match=r"has no file 'xlsum/test.jsonl', which items of XL-Sum are read from"
    ):
        build_instances(load_task("xlsum"), SHARED)


SPOKEN = {
    "bbh": "So the answer is {}.",
    "gsm8k": "{document[answer]}",
    "mgsm": "だから、答えは{}です。",
    "squad2": " {}",
    "triviaqa": " {}",
}
"""How a model that knows says the gold text."""


@shared
@pytest.mark.parametrize("protocol", ["paper", "fixed"])
@pytest.mark.parametrize(
    "name", [n for n in sorted(COUNTS) if load_task(n).scoring == "text" and "wmt" not in n]
)
def test_a_model_that_knows_is_right(name, protocol):
    """But for the study's traps: "unanswerable" is wrong there, and so is a point in an answer."""
    task = load_task(name, protocol)
    wrong = []
    for instance in build_instances(task, SHARED, 1500).instances:
        text = SPOKEN.get(name, "{}").format(instance.target, document=instance.document)
        text = min([text, *(text.partition(stop)[0] for stop in task.decoding.stops)], key=len)
        scores = score_answer(task.metric, instance, TextAnswer((text,)))
        if scores[0].score != 1:
            wrong.append(instance)
    if (name, protocol) == ("squad2", "paper"):
        assert {i.target for i in wrong} == {"unanswerable"}
    elif (name, protocol) == ("triviaqa", "paper"):
        assert all(set(i.target) & {".", ","} for i in wrong)
        assert wrong
    else:
        assert [i.target for i in wrong] == []
