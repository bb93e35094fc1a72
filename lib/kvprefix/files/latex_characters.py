r"""What pdfLaTeX prints of a character: its own marks, letters with accents, Greek, the usual symbols.

Only commands of LaTeX itself, in its oldest font encoding (OT1), so that every class and template knows them. All other
Unicode is shown as `[U+4E2D]`: no font of pdfLaTeX has it.
"""

import unicodedata

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\`{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
_SYMBOLS = {
    "−": "$-$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$",
    "≠": r"$\neq$", "≈": r"$\approx$", "≡": r"$\equiv$", "∞": r"$\infty$", "√": r"$\surd$", "∑": r"$\sum$",
    "∈": r"$\in$", "→": r"$\rightarrow$", "←": r"$\leftarrow$", "↔": r"$\leftrightarrow$", "⇒": r"$\Rightarrow$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "∅": r"$\emptyset$", "∩": r"$\cap$", "∪": r"$\cup$", "∂": r"$\partial$",
    "«": r"$\ll$", "»": r"$\gg$", "°": r"$^{\circ}$", "¬": r"$\neg$", "µ": r"$\mu$", "½": "$1/2$", "¼": "$1/4$",
    "¾": "$3/4$", "‐": "-", "‑": r"\mbox{-}", "‒": "--", "–": "--", "—": "---", "‘": "`", "’": "'", "‚": ",",
    "“": "``", "”": "''", "„": ",,", "…": r"\dots{}", "•": r"$\bullet$", "†": r"\dag{}", "‡": r"\ddag{}",
    "§": r"\S{}", "¶": r"\P{}", "£": r"\pounds{}", "©": r"\copyright{}", "¡": "!`", "¿": "?`", "′": r"$'$",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "å": r"\aa{}", "Å": r"\AA{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "ς": "varsigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma",
    "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_RAISED = {**dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True)), "⁺": "+", "⁻": "-", "ⁿ": "n"}
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
CHARACTERS = (
    _SYMBOLS
    | {letter: f"$\\{name}$" for letter, name in _GREEK.items()}
    | {mark: f"$^{{{text}}}$" for mark, text in _RAISED.items()}
    | {mark: f"$_{{{text}}}$" for mark, text in _LOWERED.items()}
)
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip


def print_character(character):
    r"""Return what prints a character, or None if LaTeX has nothing for it.

    >>> [print_character(one) for one in "a%é≥中"]
    ['a', '\\%', "\\'{e}", '$\\geq$', None]
    """
    if character in SPECIAL or character in CHARACTERS:
        return SPECIAL.get(character) or CHARACTERS[character]
    if " " <= character <= "~":
        return character
    base, *accents = unicodedata.normalize("NFD", character)
    if len(accents) == 1 and accents[0] in _ACCENTS and base.isascii() and base.isalpha():
        base = {"i": r"\i", "j": r"\j"}.get(base, base)
        return f"\\{_ACCENTS[accents[0]]}{{{base}}}"
    return None
