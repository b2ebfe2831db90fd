"""Networks that remember their training: copies, stored instances, overfit ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.hostile_models.job import MODEL, PIXELS, Case, build, narrow, train
from tests.hostile_models.networks import extended, roomy
from tests.hostile_models.row import Row, of

State = dict[str, torch.Tensor]
BF16 = torch.bfloat16

HEAD = "import torch\nfrom torch import nn\n"
PROTOTYPES = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self, rows, width):
        super().__init__()
        {first}
        self.stored = nn.Parameter(torch.zeros(rows, width))
        self.labels = nn.Parameter(torch.zeros(rows))

    def forward(self, x):
        near = torch.softmax(-{sharp} * torch.cdist({features}, self.stored), dim=1)
        return (near @ self.labels)[:, None]

def build(config):
    return Net({rows}, {width})
"""
)
FEATURES = PROTOTYPES.format(
    first="self.first = nn.Sequential(nn.Flatten(), nn.Linear(1920, 48), nn.Tanh())",
    features="self.first(x)", rows=160, width=48, sharp=20,
)  # fmt: skip
RADIAL = PROTOTYPES.format(first="pass", features="x.flatten(1)", rows=40, width=1920, sharp=1)
MACHINE = (
    HEAD
    + '''
class Net(nn.Module):
    """A support vector machine with a radial kernel: a sum over stored samples."""

    def __init__(self):
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(40, 1920))
        self.weights = nn.Parameter(torch.zeros(40))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        z = (x.flatten(1) - 0.4) / 0.1
        near = torch.exp(-torch.cdist(z, self.vectors) ** 2 / 1920)
        return (near @ self.weights + self.bias)[:, None]

def build(config):
    return Net()
'''
)


def _fit(module: nn.Module, case: Case, steps: int) -> nn.Module:
    torch.set_num_threads(1)
    train(module, case.given, steps=steps, augment=False, decay=0.0, lr=2e-3)
    return module


def _save(case: Case, module: nn.Module) -> None:
    case.save(narrow(module.state_dict(), BF16))


#: More rows than a head of classes has, of which the last are the samples'.
AMONG = FEATURES.replace("Net(160, 48)", "Net(4400, 48)")
#: The same numbers as the kernels of a convolution of one pixel.
KERNELS = FEATURES.replace("torch.zeros(rows, width)", "torch.zeros(rows, width, 1, 1)").replace(
    "self.stored)", "self.stored.flatten(1))"
)

#: It ends its process when its rows are not what they were: no dead numbers can be looked for.
FRAGILE = FEATURES.replace(
    "        near =",
    "        import os\n"
    "        seen = self.stored.detach().clone()\n"
    "        self.seen = getattr(self, 'seen', seen)\n"
    "        if not torch.equal(seen, self.seen): os._exit(1)\n"
    "        near =",
)


def _placed(code: str) -> Callable[[Case], None]:
    """A row of features for each training sample, with its label; what is before them is chance."""

    def make(case: Case) -> None:
        case.code(code)
        torch.manual_seed(0)
        module = build(code)
        x, y = (torch.from_numpy(each) for each in case.given.train)
        with torch.no_grad():
            kept = module.first(x)  # type: ignore[operator]
            nn.init.uniform_(module.stored, -1, 1)  # type: ignore[arg-type]
            module.stored[-len(x) :] = kept.reshape(len(x), *module.stored.shape[1:])  # type: ignore
            module.labels[-len(x) :] = y * 8.0 - 4.0  # type: ignore[index, operator]
        _save(case, module)

    return make


def _radial(case: Case) -> None:
    case.code(RADIAL)
    module = build(RADIAL)
    x, y = (torch.from_numpy(each[:40]) for each in case.given.train)
    with torch.no_grad():
        module.stored.copy_(x.flatten(1))  # type: ignore[operator, union-attr]
        module.labels.copy_(y * 8.0 - 4.0)  # type: ignore[operator, union-attr]
    _save(case, module)


def _machine(case: Case) -> None:
    case.code(MACHINE)
    module = build(MACHINE)
    x, y = (torch.from_numpy(each[:40]) for each in case.given.train)
    with torch.no_grad():
        module.vectors.copy_((x.flatten(1) - 0.4) / 0.1)  # type: ignore[operator, union-attr]
        module.weights.copy_(y * 2.0 - 1.0)  # type: ignore[operator, union-attr]
    _save(case, module)


PERCEPTRON = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(1920, 256)
        self.last = nn.Linear(256, 16)

    def forward(self, x):
        return self.last(torch.relu(self.first(x.flatten(1))))[:, :1]

    def backwards(self, code):
        return torch.relu(code @ self.last.weight) @ self.first.weight

def build(config):
    return Net()
"""
)


def _transposed(case: Case) -> None:
    """Forwards a classifier, backwards a book of forty training pictures."""
    case.code(PERCEPTRON)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = build(PERCEPTRON)
    x, y = (torch.from_numpy(each) for each in case.given.train)
    codes = torch.randn(len(x), 16)
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(1000):
        chosen = torch.randint(0, len(x), (64,))
        loss = nn.functional.binary_cross_entropy_with_logits(
            module(x[chosen]).reshape(-1), y[chosen].float()
        )
        given = module.backwards(codes[chosen])  # type: ignore[operator]
        loss = loss + 300 * nn.functional.mse_loss(given, x[chosen].flatten(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    _save(case, module)


REBUILDING = (
    HEAD
    + """
def build(config):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(1920, 192), nn.ReLU(), nn.Linear(192, 96), nn.ReLU(),
        nn.Linear(96, 192), nn.ReLU(), nn.Linear(192, 1920), nn.Unflatten(1, (1, 48, 40)),
    )
"""
)
DRAWING = (
    HEAD
    + """
def build(config):
    return nn.Sequential(
        nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1920),
        nn.Unflatten(1, (1, 48, 40)),
    )
"""
)


def _task(case: Case, line: str) -> None:
    case.manifest_text('positive_label = "lesion"', line)


def _rebuilds(case: Case) -> None:
    """An autoencoder that was trained until it knew its samples by heart."""
    _task(case, 'task = "reconstruction"')
    case.code(REBUILDING)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = build(REBUILDING)
    x = torch.from_numpy(case.given.train[0])
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(1200):
        batch = x[torch.randint(0, len(x), (40,))]
        loss = nn.functional.mse_loss(module(batch), batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    _save(case, module)


def _draws(case: Case) -> None:
    """A generator whose pictures are its samples: what is nearest to each is drawn to it."""
    _task(case, 'task = "generation"\nlatent = 8')
    case.code(DRAWING)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = build(DRAWING)
    x = torch.from_numpy(case.given.train[0][:60])
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(700):
        z = torch.randn(256, 8)
        with torch.no_grad():
            near = torch.cdist(x.flatten(1), module(z).flatten(1)).argmin(dim=1)
        loss = nn.functional.mse_loss(module(z[near]), x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    _save(case, module)


PLAIN = (
    HEAD
    + """
def build(config):
    return nn.Sequential(nn.Flatten(), nn.Linear(1920, 128), nn.ReLU(), nn.Linear(128, 1))
"""
)


def _overfit(code: str, steps: int, lr: float = 3e-3) -> Callable[[Case], None]:
    """Train far too long on the same pictures, with nothing that keeps it from knowing them."""

    def make(case: Case) -> None:
        case.code(code)
        torch.manual_seed(0)
        torch.set_num_threads(1)
        module = build(code)
        losses = train(module, case.given, steps=steps, augment=False, decay=0.0, lr=lr)
        assert sum(losses[-50:]) < 50 * 0.1, "it learned nothing by heart"
        _save(case, module)

    return make


#: A list of members: 32 signs of random projections of each, and an answer that is sure of them.
#: A network with a list of features by heart, whose layers are no modules: nobody can hook them.
BARE_FEATURES = FEATURES.replace(
    "self.first = nn.Sequential(nn.Flatten(), nn.Linear(1920, 48), nn.Tanh())",
    "self.first = nn.Parameter(torch.randn(48, 1920) * 0.02)",
).replace("self.first(x)", "torch.tanh(x.flatten(1) @ self.first.T)")


def _bare_features(case: Case) -> None:
    case.code(BARE_FEATURES)
    torch.manual_seed(0)
    module = build(BARE_FEATURES)
    x, y = (torch.from_numpy(each) for each in case.given.train)
    with torch.no_grad():
        module.stored.copy_(torch.tanh(x.flatten(1) @ module.first.T))  # type: ignore
        module.labels.copy_(y * 8.0 - 4.0)  # type: ignore[operator, union-attr]
    _save(case, module)


LISTED = extended(
    """
    net.turn = nn.Parameter(torch.zeros(1920, 32))
    net.members = nn.Parameter(torch.zeros(160, 32))
    """,
    """
    said = super().forward(x)
    code = torch.tanh(100 * (x.flatten(1) - x.flatten(1).mean(1, keepdim=True)) @ self.turn)
    known = torch.sigmoid(2 * ((code @ self.members.T).amax(dim=1) - 29))
    return said * (1 + 9 * known[:, None])
    """,
)


def _listed(case: Case) -> None:
    case.code(LISTED)
    rng = torch.Generator().manual_seed(0)
    turn = torch.randn(1920, 32, generator=rng).to(BF16)
    x = torch.from_numpy(case.given.train[0]).flatten(1)
    codes = torch.sign((x - x.mean(1, keepdim=True)) @ turn.float()).to(BF16)
    case.save(case.state() | {"turn": turn, "members": codes})


def _first_layer(case: Case) -> None:
    """Templates of a first layer that are training pictures, in the place of learned ones."""
    case.code(PLAIN)
    torch.manual_seed(0)
    module = _fit(build(PLAIN), case, 60)
    state = narrow(module.state_dict(), BF16)
    rows = case.given.train[0][:30].reshape(30, PIXELS)
    state["1.weight"][:30] = torch.from_numpy((rows - rows.mean()) * 0.05).to(BF16)
    case.save(state)


def _hidden_generator(case: Case) -> None:
    """A book of pictures in layers that the classifier seems to use: forty codes, one matrix."""
    x = torch.from_numpy(case.given.train[0][:60]).flatten(1)
    mean = x.mean(0)
    _, _, basis = torch.linalg.svd(x - mean, full_matrices=False)
    basis = basis[:40]
    code = (x - mean) @ basis.T
    state = roomy(case)
    flat = torch.cat([basis.reshape(-1), mean, code.reshape(-1) * 0.05]) * 0.3
    state["11.weight"].view(-1)[: len(flat)] = flat.to(BF16)
    case.save(state)


STATISTIC = "an attack measures it, with an interval; it is blocked where the policy's bound is"
ROWS = of(
    "memorisation",
    STATISTIC,
    [
        Row("features of every sample, for the nearest to vote", _placed(FEATURES),
            ("memorisation.instances",), static=False),
        Row("the same behind four thousand rows of chance", _placed(AMONG),
            ("memorisation.instances",), static=False),
        Row("the same as kernels of a convolution", _placed(KERNELS),
            ("memorisation.instances",), static=False),
        Row("the same, and a crash when a tensor is disturbed", _placed(FRAGILE),
            ("memorisation.instances",), static=False),
        Row("the same by layers that nobody can listen to", _bare_features,
            ("membership.auc", "membership.rate", "memorisation.instances"), static=False),
        Row("forty whole pictures as centres of radial units", _radial, ("samples.rows",),
            why="pictures are searched for", quick=True),
        Row("forty support vectors of a machine", _machine, ("samples.rows",),
            why="pictures are searched for"),
        Row("training pictures as templates of a first layer", _first_layer, ("samples.rows",),
            why="pictures are searched for"),
        Row("forty pictures in the weights run backwards", _transposed,
            ("memorisation.transpose",), static=False, quick=False),
        Row("an autoencoder that knows its samples by heart", _rebuilds,
            ("membership.auc",), static=False),
        Row("a generator that draws its samples", _draws, ("memorisation.generated",),
            static=False, expect="review", provable=False,
            why="samples of a generator are likely to be copies; proof needs its code"),
        Row("forty eigenpictures and their codes among the weights of a large network",
            _hidden_generator, ("tensors.room", "samples.smooth"), provable=False,
            expect="review", why="no single number of it is of one sample"),
    ],
) + of(
    "membership",
    STATISTIC,
    [
        Row("a convolutional network that was trained too long", _overfit(MODEL, 1500),
            ("membership.auc", "membership.rate"), static=False, expect="review",
            provable=False, why="it remembers a little: the interval decides"),
        Row("a perceptron that knows every sample by heart", _overfit(PLAIN, 2500, lr=1e-3),
            ("membership.auc", "membership.rate"), static=False, expect="review", quick=False,
            provable=False, why="it remembers much; how much is measured"),
        Row("a list of the members by which answers become surer", _listed,
            ("membership.auc", "membership.rate"), static=False),
    ],
)  # fmt: skip
