"""How large the product is: lines of code by folder, the largest module, the longest function.

A line of code has at least one token that is no comment and no part of a docstring. Lua is counted apart.
"""

import ast
import io
import subprocess
from collections import Counter
from pathlib import Path
from tokenize import COMMENT, DEDENT, ENCODING, ENDMARKER, INDENT, NEWLINE, NL, generate_tokens

FOLDERS = ("asgictl", "interface", "worker", "loadtests")
NO_CODE = {COMMENT, NL, NEWLINE, INDENT, DEDENT, ENCODING, ENDMARKER}


def code_lines(source: str) -> set[int]:
    """Return the numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return lines


def functions(source: str, lines: set[int]) -> dict[str, int]:
    """Return how many lines of code each function has, by name."""
    return {
        node.name: len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def main() -> None:
    """Print the figures of the files that git tracks."""
    tracked = subprocess.run(["git", "ls-files", *FOLDERS], capture_output=True, text=True, check=True).stdout.split()
    modules, longest, folders = Counter[str](), Counter[str](), Counter[str]()
    for name in tracked:
        path = Path(name)
        if path.suffix == ".lua":
            lines = [
                line for line in path.read_text().splitlines() if line.strip() and not line.strip().startswith("--")
            ]
            folders["Lua"] += len(lines)
        elif path.suffix == ".py" and not path.is_symlink():
            source = path.read_text()
            code = code_lines(source)
            modules[name] = len(code)
            folders[path.parts[0]] += len(code)
            longest.update({f"{name}:{function}": count for function, count in functions(source, code).items()})
    for folder in (*FOLDERS, "Lua"):
        print(f"{folder:12}{folders[folder]:8,}")
    print(f"{'Python':12}{sum(folders[each] for each in FOLDERS):8,} lines of code in {len(modules)} modules")
    for what, counts in (("module", modules), ("function", longest)):
        print(f"the largest {what}: {', '.join(f'{name} ({count})' for name, count in counts.most_common(3))}")


if __name__ == "__main__":
    main()
