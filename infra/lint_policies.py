#!/usr/bin/env python3
"""Keeps our IAM policies narrow: what they allow names its actions, its resources and its principals.

It reads the Terraform sources, so that it needs neither an account nor a plan. A statement that allows a wildcard stands in
EXCEPTIONS with the reason; an exception that nothing uses any more is an error too. Denying everything is always fine.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# (file, sid, what is wide): why it has to be.
EXCEPTIONS = {
    ("modules/frontend-lambda/iam.tf", "JoinTheNetwork", "resources"): (
        "EC2 knows no resource for the Describe calls, and Lambda checks the whole list against any interface when a "
        "function is made; the statement NotTheCode takes all of it from the function's code"
    ),
    ("modules/network/main.tf", "OnlyOurBucket", "principals"): (
        "the policy of an endpoint adds nothing to what a caller's own policy allows; it bounds where callers may go"
    ),
}

# Where a function may be called without signing, and why.
OPEN_URLS = {"environments/localstack/main.tf": "LocalStack listens on the loopback address alone"}


def without_comments(text):
    return re.sub(r"^\s*(#|//).*$", "", text, flags=re.MULTILINE)


def blocks(text, head):
    """The bodies of the blocks whose opening line matches `head`."""
    for match in re.finditer(head + r"\s*\{", text):
        depth, at = 1, match.end()
        while depth and at < len(text):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        yield text[match.end() : at - 1]


def statements(text):
    """Each statement of each policy document as (sid, effect, body); those of dynamic blocks too."""
    for document in blocks(text, r'data "aws_iam_policy_document" "[^"]+"'):
        heads = [r"(?m)^\s*statement", r"(?m)^\s*content"]
        for body in (body for head in heads for body in blocks(document, head)):
            sid = re.search(r'\bsid\s*=\s*"([^"]+)"', body)
            effect = re.search(r'\beffect\s*=\s*"([^"]+)"', body)
            yield (sid.group(1) if sid else None), (effect.group(1) if effect else "Allow"), body


def wide(body):
    """Which of a statement's lists hold a wildcard that names nothing."""
    lists = re.findall(r"\b(actions|resources|identifiers)\s*=\s*\[(.*?)\]", body, flags=re.DOTALL)
    for name, content in lists:
        values = re.findall(r'"([^"]*)"', content)
        if name == "actions" and any("*" in value for value in values):
            yield "actions"
        if name == "resources" and any(value in ("*", "arn:aws:s3:::*") for value in values):
            yield "resources"
        if name == "identifiers" and "*" in values:
            yield "principals"
    for name in ("not_actions", "not_resources", "not_principals"):
        if re.search(rf"\b{name}\b", body):
            yield name


def check(path, text, used):
    """The complaints about one file; adds the exceptions that it needed to `used`."""
    text = without_comments(text)
    for sid, effect, body in statements(text):
        if sid is None:
            yield f"{path}: a statement has no sid: nothing could refer to it"
            continue
        for what in wide(body) if effect == "Allow" else ():
            if (path, sid, what) in EXCEPTIONS:
                used.add((path, sid, what))
            else:
                yield f"{path}: {sid}: {what} allow everything: name them, or add an exception with a reason"
    for match in re.finditer(r"\b(policy|assume_role_policy)\s*=\s*(jsonencode|<<|\")", text):
        yield f"{path}: {match.group(1)} is written by hand: use aws_iam_policy_document, which is checked"
    if re.search(r'"arn:aws:iam::aws:policy/', text):
        yield f"{path}: a policy of AWS's own is wider than what we need, and changes without us"
    if re.search(r'(url_authorization|authorization_type)\s*=\s*"NONE"', text) and path not in OPEN_URLS:
        yield f"{path}: a function URL without authorization"


def check_itself():
    """Finds what it is there to find."""
    statement = 'data "aws_iam_policy_document" "x" {{\n  statement {{\n {}\n }}\n}}\n'
    wildcard = 'resource "aws_iam_role_policy" "x" {{ policy = {} }}'
    bad = [
        statement.format('sid = "A"\n actions = ["s3:*"]\n resources = [var.a]'),
        statement.format('sid = "A"\n actions = ["s3:Get*"]\n resources = [var.a]'),
        statement.format('sid = "A"\n actions = ["s3:GetObject"]\n resources = ["*"]'),
        statement.format('sid = "A"\n actions = ["s3:GetObject"]\n principals {\n identifiers = ["*"]\n }'),
        statement.format('sid = "A"\n not_actions = ["s3:GetObject"]\n resources = [var.a]'),
        statement.format('actions = ["s3:GetObject"]\n resources = [var.a]'),
        'data "aws_iam_policy_document" "x" {\n dynamic "statement" {\n content {\n sid = "A"\n actions = ["*"]\n }\n }\n}\n',
        wildcard.format('jsonencode({ Action = "*" })'),
        'resource "x" "y" { policy_arn = "arn:aws:iam::aws:policy/AdministratorAccess" }',
        'module "x" { url_authorization = "NONE" }',
    ]
    good = [
        statement.format('sid = "A"\n actions = ["s3:GetObject"]\n resources = ["${var.a}/*"]'),
        statement.format('sid = "A"\n effect = "Deny"\n actions = ["s3:*"]\n resources = ["*"]'),
        wildcard.format("data.aws_iam_policy_document.x.json"),
    ]
    for text in bad:
        assert list(check("x.tf", text, set())), f"nothing was found in:\n{text}"
    for text in good:
        assert not list(check("x.tf", text, set())), f"something was found in:\n{text}"


def main():
    check_itself()
    used, complaints, files = set(), [], sorted(ROOT.rglob("*.tf"))
    files = [file for file in files if ".terraform" not in file.parts]
    for file in files:
        complaints += check(file.relative_to(ROOT).as_posix(), file.read_text(), used)
    for path, sid, what in sorted(EXCEPTIONS.keys() - used):
        complaints.append(f"{path}: {sid}: the exception for its {what} is needed no more: remove it")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if not complaints:
        print(f"policies: {len(files)} files, {len(used)} exceptions with a reason")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
