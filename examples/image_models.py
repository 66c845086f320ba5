"""Compress an image classifier of torchvision or timm.

    python examples/image_models.py --model torchvision:mobilenet_v3_small --images FOLDER
    python examples/image_models.py --model timm:resnet18.a1_in1k --images FOLDER

FOLDER has a subfolder for each class, as in ImageNet, in the order of the model's outputs.
`--smoke` takes a small mobile network with random weights on random images, and two trials.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

import autocompress as ac


class InvertedResidual(nn.Sequential):
    """Widen, filter each channel, narrow; the shape stays."""

    def __init__(self, width: int) -> None:
        super().__init__(
            *(nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU6()),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width, bias=False),
            *(nn.BatchNorm2d(2 * width), nn.ReLU6()),
            *(nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add what the layers make to the input."""
        return x + super().forward(x)


def stand_in() -> tuple[nn.Module, Dataset[Any]]:
    """Make a mobile network, and images whose brightest colour is their class."""
    torch.manual_seed(0)
    blocks = [InvertedResidual(16) for _ in range(2)]
    stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)]
    labels = torch.randint(3, (400,))
    images = 0.3 * torch.randn(400, 3, 32, 32)
    images[torch.arange(400), labels] += 0.5
    return nn.Sequential(*stem, *blocks, *head).eval(), TensorDataset(images, labels)


def load(name: str, folder: Path) -> tuple[nn.Module, Dataset[Any]]:
    """Load a trained model with the transforms it was trained with."""
    from torchvision.datasets import ImageFolder

    library, _, model_name = name.partition(":")
    if library == "timm":
        import timm

        model = timm.create_model(model_name, pretrained=True)
        transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    else:
        from torchvision.models import get_model, get_model_weights

        weights = get_model_weights(model_name).DEFAULT
        model, transform = get_model(model_name, weights=weights), weights.transforms()
    return model.eval(), ImageFolder(str(folder), transform)


def main() -> None:
    """Search, and print the front."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="torchvision:NAME or timm:NAME")
    parser.add_argument("--images", type=Path, help="a folder with one subfolder per class")
    parser.add_argument("--space", default="mobile", help="or cnn, or vit")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--study-dir", default="runs/images")
    parser.add_argument("--smoke", action="store_true", help="a random stand-in, two trials")
    options = parser.parse_args()
    if options.smoke:
        options.trials, options.minutes = 2, 1
        model, data = stand_in()
    elif options.model is None or options.images is None:
        parser.error("--model and --images are needed, or --smoke")
    else:
        model, data = load(options.model, options.images)
    train, val, test = random_split(data, [0.6, 0.2, 0.2], torch.Generator().manual_seed(0))
    task = ac.Task(
        train=DataLoader(train, batch_size=64, shuffle=True),
        val=DataLoader(val, batch_size=64),
        test=DataLoader(test, batch_size=64),
    )
    result = ac.search(
        model,
        task,
        space=options.space,
        budget=ac.Budget(trials=options.trials, minutes=options.minutes),
        study_dir=options.study_dir,
    )
    for member in result.front:
        print(member)


if __name__ == "__main__":
    main()
