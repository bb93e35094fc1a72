"""Find what each prompt of a session shares with earlier ones, piece by piece, and number the distinct pieces."""

from kvprefix.tokens.marks import cut_marks


class Threads:
    """The prompts of some sessions, cut into pieces and walked down one tree per session.

    A row is a prompt. It is stored as the pieces that no earlier prompt of its session has at that place, and the node
    after which those stand. Node k is the k-th piece that is stored; negative nodes are roots.

    Attributes
    ----------
    numbers : dict of str to int
        The number of each distinct piece; the fences first.
    pieces : list of int
        Those of all rows, one row after the other.
    layouts : list of tuple
        For each of these, which messages its parts are of, see `marks.cut_marks`.
    is_marked : list of bool
        For each row, whether that is known.
    offsets : list of int
        Where those of each row begin, and where the last ones end.
    nodes : list of int
        The node after which those of each row stand.
    lasts : list of str
        The text after each prompt's last fence.
    before : list of int
        The last row before each whose pieces begin at the same node, -1 for none.
    """

    def __init__(self, chat):
        self.chat = chat
        self.numbers = {fence: k for k, fence in enumerate(chat.fences)}
        self.pieces, self.offsets, self.nodes, self.lasts, self.before = [], [0], [], [], []
        self.layouts, self.is_marked = [], []
        self._roots, self._steps, self._known, self._rows, self._unnamed = {}, {}, {}, {}, _Unnamed()

    def add(self, session, text, marked=None):
        """Add the next prompt of a session.

        Only what follows the last fence of the session's previous prompt is cut, if the two texts are equal up to
        there: no fence holds another, so the text before is cut in the same way. A prompt without a session belongs to
        the earlier one without a session all of whose messages it has, if there is one.

        Parameters
        ----------
        session : str or None
        text : str
        marked : str, optional
            The text with marks. Where they would change how it is cut, they are left out.
        """
        known, node = self._known.get(session, ("", None)) if session is not None else ("", None)
        whole = text if marked is None else marked
        if node is None or not whole.startswith(known):
            known, node = "", None
        cut = self.chat.split(whole[len(known) :]) if len(known) < len(whole) else []
        texts, layouts = cut, [()] * len(cut)
        if marked is not None and cut:
            texts, layouts = map(list, zip(*map(cut_marks, cut), strict=True))
            if texts != self.chat.split("".join(texts)):
                self.add(session, text)
                return
        numbers = [self.numbers.setdefault(piece, len(self.numbers)) for piece in texts]
        fences = [k for k, piece in enumerate(texts) if piece in self.chat.fences]
        last = fences[-1] + 1 if fences else 0  # pieces up to and with the last fence
        if session is None:
            session = self._unnamed.find(numbers, last)
        if node is None:
            node = self._roots.setdefault(session, -1 - len(self._roots))
        path = self._walk(node, numbers, layouts)
        row, node = len(self.nodes), path[len(path) - (len(self.pieces) - self.offsets[-1]) - 1]
        self.before.append(self._rows.get(node, -1))
        self._rows[node] = row
        self.nodes.append(node)
        self.offsets.append(len(self.pieces))
        self.lasts.append("".join(texts[last:]))
        self.is_marked.append(marked is not None)
        if last:
            self._known[session] = known + "".join(cut[:last]), path[last]

    def _walk(self, node, numbers, layouts):
        """Return the nodes from this one on over pieces; new pieces are stored."""
        path = [node]
        for number, layout in zip(numbers, layouts, strict=True):
            step = self._steps.get((path[-1], number, layout))
            if step is None:
                step = self._steps[path[-1], number, layout] = len(self.pieces)
                self.pieces.append(number)
                self.layouts.append(layout)
            path.append(step)
        return path


class _Unnamed:
    """Finds which prompts without a session continue one another."""

    def __init__(self):
        self.steps, self.n_threads = {}, 0
        self.waiting, self.latest = {}, {}  # of a node: threads that no prompt continues yet, and the last continued

    def find(self, numbers, last):
        """Return the thread of a prompt: a pair that no session equals.

        It continues the longest earlier prompt that it goes on from; of equal ones, the first that none continues yet.
        A prompt that only repeats an earlier one begins a thread.

        Parameters
        ----------
        numbers : list of int
            Its pieces.
        last : int
            How many stand before the start of the reply.
        """
        node, before = 0, None
        for k, number in enumerate(numbers[:last]):
            node = self.steps.setdefault((node, number), len(self.steps) + 1)
            before = node if node in self.waiting and k < last - 1 else before
        if before is None:
            thread, self.n_threads = (None, self.n_threads), self.n_threads + 1
        else:
            thread = self.waiting[before].pop(0) if self.waiting[before] else self.latest[before]
            self.latest[before] = thread
        self.waiting.setdefault(node, []).append(thread)
        return thread
