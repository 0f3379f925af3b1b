# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that PyTorch trains."""

import digits


def train(data):
    import torch
    from torch import nn

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pooled = (data.side - 2) // 2
    model = nn.Sequential(
        nn.Conv2d(1, digits.FILTERS, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(digits.FILTERS * pooled * pooled, digits.HIDDEN),
        nn.ReLU(),
        nn.Linear(digits.HIDDEN, digits.CLASSES),
    ).to(device)
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def images_of(array):
        return torch.from_numpy(array).permute(0, 3, 1, 2).to(device)

    for images, labels in digits.batches(data):
        optimizer.zero_grad()
        loss_of(model(images_of(images)), torch.from_numpy(labels).to(device)).backward()
        optimizer.step()
    with torch.no_grad():
        guesses = model(images_of(data.test_images)).argmax(1).cpu().numpy()
    return (guesses == data.test_labels).mean(), used(next(model.parameters()))


def used(tensor):
    import torch

    device = tensor.device
    return digits.Used(
        version=torch.__version__,
        device="cpu" if device.type == "cpu" else "gpu",
        device_name="CPU" if device.type == "cpu" else f"{torch.cuda.get_device_name(device)} ({device})",
        built_for_gpu=bool(torch.version.cuda or torch.version.hip),
    )


if __name__ == "__main__":
    digits.prove("PyTorch", train)
