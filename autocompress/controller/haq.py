"""The agent of HAQ as a sampler, to compare others with."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial
from scipy.stats import truncnorm
from torch import nn

from autocompress.controller.genes import Genes
from autocompress.controller.landscape import History
from autocompress.controller.memory import Memory
from autocompress.core.seeds import derive_seed

FloatArray = NDArray[np.float64]

HIDDEN = 300
WARM_UP = 20
BATCH = 64
ACTOR_RATE, CRITIC_RATE = 1e-4, 1e-3
TARGET_RATE = 0.01
FIRST_NOISE, NOISE_DECAY = 0.5, 0.99
"""The agent's settings, as published."""


class HaqSampler(BaseSampler):
    """Reinforcement learning, one parameter after the other: a labelled baseline.

    The agent of Wang et al. 2019, "HAQ": deep deterministic policy gradient,
    whose action for each layer is a number in [0, 1] that is rounded to a
    choice, and whose reward, known at the end of an episode, counts for every
    step. HAQ searches for one budget at a time; here each episode has weights
    of the objectives, drawn at random, in its state, and the reward is minus
    the weighted sum of the standardised losses. What is learned from is what
    was evaluated. Proposals depend on the seed and the study only.
    """

    def __init__(self, seed: int = 0) -> None:
        """Prepare an agent.

        Args:
            seed: Decides networks, weights and noise.
        """
        self._seed = seed
        self._memories: WeakKeyDictionary[Study, Memory] = WeakKeyDictionary()
        self._agents: WeakKeyDictionary[Study, _Agent] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Keep the seed only; all else comes from studies."""
        return {"seed": self._seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin again from the seed."""
        self.__init__(**state)  # type: ignore[misc]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters whose distribution never changed."""
        return self._memory(study).space(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a value for every parameter of a space."""
        if not search_space:
            return {}
        genes = Genes.of(search_space)
        memory = self._memory(study)
        history = memory.history(study, genes)
        agent = self._agents.get(study)
        if agent is None or not agent.has_seen(genes, history):
            agent = _Agent(genes, history.losses.shape[1], self._seed)
            self._agents[study] = agent
        agent.learn(history)
        return genes.decode(agent.propose(memory.place(study, trial)))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter that is not in the space at random."""
        own = derive_seed(self._seed, trial.number, f"independent {param_name}")
        return RandomSampler(seed=own).sample_independent(
            study, trial, param_name, param_distribution
        )

    def _memory(self, study: Study) -> Memory:
        return self._memories.setdefault(study, Memory())


class _Agent:
    """Actor, critic and replay memory for one space."""

    def __init__(self, genes: Genes, objectives: int, seed: int) -> None:
        self.genes, self._objectives, self._seed = genes, objectives, seed
        width = 4 + objectives
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, -1, "networks"))
            self._actor = nn.Sequential(_network(width), nn.Sigmoid())
            self._critic = _network(width + 1)
            self._targets = nn.Sequential(_network(width), nn.Sigmoid()), _network(width + 1)
        for target, source in zip(self._targets, (self._actor, self._critic), strict=True):
            target.load_state_dict(source.state_dict())
        self._actor_steps = torch.optim.Adam(self._actor.parameters(), lr=ACTOR_RATE)
        self._critic_steps = torch.optim.Adam(self._critic.parameters(), lr=CRITIC_RATE)
        self._states: list[FloatArray] = []
        self._actions: list[FloatArray] = []
        self._losses: list[FloatArray] = []
        self._places: list[int] = []

    def has_seen(self, genes: Genes, history: History) -> bool:
        """Tell whether all that was learned is what a history begins with."""
        known = np.array(self._losses).reshape(-1, self._objectives)
        return self.genes.distributions == genes.distributions and np.array_equal(
            known, history.losses[: len(known)]
        )

    def propose(self, place: int) -> FloatArray:
        """Act once for each parameter; return the row."""
        rng = np.random.default_rng(derive_seed(self._seed, place, "noise"))
        weights, actions = self._weights(place), np.empty(len(self.genes.sizes))
        episodes = len(self._actions)
        noise = FIRST_NOISE * NOISE_DECAY ** max(0, episodes - WARM_UP)
        for step in range(len(actions)):
            if episodes < WARM_UP:
                actions[step] = rng.random()
                continue
            state = self._state(actions, step, weights)
            with torch.no_grad():
                mean = float(self._actor(torch.tensor(state, dtype=torch.float32)))
            low, high = -mean / noise, (1.0 - mean) / noise
            actions[step] = truncnorm.rvs(low, high, loc=mean, scale=noise, random_state=rng)
        sizes = self.genes.sizes
        return np.where(sizes > 0, np.minimum(np.floor(actions * sizes), sizes - 1), actions)

    def learn(self, history: History) -> None:
        """Add the episodes that are new, and take as many steps for each as it has."""
        for episode in range(len(self._actions), len(history)):
            place, row = int(history.places[episode]), history.rows[episode]
            sizes = self.genes.sizes
            actions = np.where(sizes > 0, (row + 0.5) / np.maximum(sizes, 1), row)
            weights = self._weights(place)
            states = [self._state(actions, step, weights) for step in range(len(actions))]
            self._actions.append(actions)
            self._states.append(np.array(states))
            self._losses.append(history.losses[episode])
            self._places.append(place)
            if len(self._actions) > WARM_UP:
                self._improve(place)

    def _improve(self, place: int) -> None:
        """Take the gradient steps that follow an episode."""
        rng = np.random.default_rng(derive_seed(self._seed, place, "batches"))
        losses = np.array(self._losses)
        centre, spread = np.median(losses, axis=0), losses.std(axis=0)
        scaled = (losses - centre) / np.where(spread > 0.0, spread, 1.0)
        weights = np.array([self._weights(n) for n in self._places])
        rewards = -(scaled * weights).sum(axis=1)
        states = torch.tensor(np.array(self._states), dtype=torch.float32)
        actions = torch.tensor(np.array(self._actions), dtype=torch.float32)
        returns = torch.tensor(rewards, dtype=torch.float32)
        steps = states.shape[1]
        for _ in range(steps):
            episode = torch.from_numpy(rng.integers(0, len(states), BATCH))
            step = torch.from_numpy(rng.integers(0, steps, BATCH))
            state, action = states[episode, step], actions[episode, step, None]
            last = (step == steps - 1)[:, None]
            following = states[episode, (step + 1).clamp(max=steps - 1)]
            with torch.no_grad():
                actor, critic = self._targets
                ahead = critic(torch.cat([following, actor(following)], dim=1))
                goal = returns[episode, None] + torch.where(last, 0.0, ahead)
            error = nn.functional.mse_loss(self._critic(torch.cat([state, action], dim=1)), goal)
            _descend(self._critic_steps, error)
            value = self._critic(torch.cat([state, self._actor(state)], dim=1)).mean()
            _descend(self._actor_steps, -value)
            for target, source in zip(self._targets, (self._actor, self._critic), strict=True):
                for old, new in zip(target.parameters(), source.parameters(), strict=True):
                    old.data.lerp_(new.data, TARGET_RATE)

    def _state(self, actions: FloatArray, step: int, weights: FloatArray) -> FloatArray:
        """Describe the parameter whose turn it is, and what was done before."""
        before = actions[:step]
        place = [step / len(actions), 1.0 / max(1, int(self.genes.sizes[step]))]
        done = [before[-1], before.mean()] if step else [1.0, 1.0]
        return np.array([*place, *done, *weights])

    def _weights(self, place: int) -> FloatArray:
        """Return an episode's weights of the objectives."""
        rng = np.random.default_rng(derive_seed(self._seed, place, "weights"))
        return rng.dirichlet(np.ones(self._objectives))


def _network(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, 1),
    )


def _descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
    optimiser.step()
