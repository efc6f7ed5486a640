"""Writes features.json: outputs of other packages for the resizers and feature networks that gan_jax has too.

test_features.py compares gan_jax with that file, and needs none of the packages. To make it again, with Python 3.11:

    python3.11 -m venv venv
    venv/bin/pip install torch==2.14.1 torchvision==0.29.1 torch-fidelity==0.4.0 timm==1.0.31 open_clip_torch==3.3.0 \
        clean-fid==0.1.35 tensorflow-cpu==2.21.0 pillow==12.0.0 jax==0.10.2 jaxtyping==0.3.11
    venv/bin/python -m tests.golden.make_features

(Pillow 13 resizes the columns of tall images first; Pillow 12 and the published numbers do not.)

Both sides use the weights and images of random_weights.py. The names and shapes of the weights come from gan_jax, and
the packages' networks load them strictly: none may be missing or left over. The program then compares whole feature
vectors of gan_jax, and lets gan_jax read the files that PyTorch writes of these weights (torch.save in both of its
formats, and torch.jit). It prints the figures.
"""

import hashlib
import importlib
import importlib.metadata
import json
import pathlib
import tempfile
from unittest import mock

import numpy as np

from tests.golden import random_weights

MAIN = __name__ == "__main__"
torch = importlib.import_module("torch") if MAIN else None  # not under pytest, which imports every file
if MAIN:
    importlib.import_module("torchvision")  # it crashes if imported after TensorFlow

INCEPTION = {"small": (2, 32, 32), "tall": (1, 61, 47), "large": (1, 320, 400)}
TRANSFORMER = {"small": (1, 32, 32), "wide": (1, 280, 320)}
CASES = {
    "inception_2015": INCEPTION,
    "inception_2015_clean": INCEPTION,
    "dinov2_vitb14": {**TRANSFORMER, "tall": (1, 61, 47)},
    "dinov2_vitl14": TRANSFORMER,
    "clip_vitl14_336": {"small": (1, 32, 32), "wide": (1, 400, 452)},
}
RESIZED = [(32, 32, 299), (61, 47, 299), (400, 300, 299), (1000, 640, 224), (32, 32, 336), (299, 299, 299), (1, 1, 8)]
ENTRIES = {}


def sample(array):
    """Returns 40 numbers from all over an array, in its order."""
    flat = np.asarray(array).ravel()
    return rounded(flat[np.linspace(0, flat.size - 1, 40).astype(int)])


def rounded(numbers):
    """Rounds numbers to the digits that float32 has."""
    return [float(f"{x:.9g}") for x in numbers]


def entry(name, package, function, **figures):
    version = importlib.metadata.version(package)
    ENTRIES[name] = {"package": package, "version": version, "function": function, **figures}


def channels_first(images):
    return torch.tensor(images).permute(0, 3, 1, 2)


def each(function, images):
    pil = importlib.import_module("PIL.Image")
    return np.stack([np.asarray(function(pil.fromarray(image))) for image in images])


def resizers():
    tf, pil = importlib.import_module("tensorflow"), importlib.import_module("PIL.Image")
    like_tf = importlib.import_module("torch_fidelity.interpolate_compat_tensorflow")
    clean = importlib.import_module("cleanfid.resize")
    for height, width, size in RESIZED:
        name, images = f"{height}x{width}_{size}", random_weights.images("resizers", 1, height, width)
        output = tf.compat.v1.image.resize_bilinear(images, (size, size)).numpy()
        entry(f"tf1_bilinear_{name}", "tensorflow-cpu", "tf.compat.v1.image.resize_bilinear", sample=sample(output))
        same = like_tf.interpolate_bilinear_2d_like_tensorflow1x(
            channels_first(images).float(), size=(size, size), align_corners=False
        )
        print(
            f"{name}: torch-fidelity and TensorFlow differ by", np.abs(same.permute(0, 2, 3, 1).numpy() - output).max()
        )
        output = each(lambda image, size=size: image.resize((size, size), pil.Resampling.BICUBIC), images)
        digest = hashlib.sha256(output.tobytes()).hexdigest()
        entry(f"bicubic_uint8_{name}", "pillow", "Image.resize", sample=sample(output), sha256=digest)
        output = clean.make_resizer("PIL", False, "bicubic", (size, size))(images[0])
        entry(f"bicubic_{name}", "clean-fid", "cleanfid.resize.make_resizer", sample=sample(output))


def tensors(network):
    return {name: torch.tensor(value) for name, value in random_weights.tensors(network.file.used).items()}


def inception(network, directory):
    """Returns torch-fidelity's network; for clean-fid's numbers, behind clean-fid's resizer."""
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    clean = importlib.import_module("cleanfid.resize").build_resizer("clean")
    weights, path = tensors(network), pathlib.Path(directory, "weights.pth")
    tracked = {
        f"{name}.num_batches_tracked": torch.tensor(0)
        for name in {n.rpartition(".")[0] for n in weights if ".bn." in n}
    }
    torch.save({**weights, **tracked}, path)
    assert set(tracked) == set(network.file.unused)
    outputs = ("2048", "logits_unbiased", "logits")
    net = module.FeatureExtractorInceptionV3("inception", list(outputs), feature_extractor_weights_path=path)

    def run(images):
        if network.name == "inception_2015":
            return dict(zip(("features", "logits", "biased_logits"), net(channels_first(images)), strict=True))
        resized = torch.tensor(np.stack([clean(image) for image in images])).permute(0, 3, 1, 2)
        with mock.patch.object(module, "interpolate_bilinear_2d_like_tensorflow1x", lambda *_, **__: resized):
            return dict(zip(("features", "logits", "biased_logits"), net(channels_first(images)), strict=True))

    function = "FeatureExtractorInceptionV3" + (" behind cleanfid.resize" if network.name != "inception_2015" else "")
    return run, "torch-fidelity", function, net


def dinov2(network, directory):
    """Returns timm's network, with positions interpolated by PyTorch as in the authors' code; timm's way differs."""
    timm, transforms = importlib.import_module("timm"), importlib.import_module("torchvision.transforms")
    size = {"b": "base", "l": "large"}[network.name[-3]]
    net = timm.create_model(f"vit_{size}_patch14_dinov2", img_size=224, num_classes=0).eval()
    weights = tensors(network)
    table = weights["pos_embed"]
    grid = table[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, scale_factor=(16 + 0.1) / 37, mode="bicubic")
    assert grid.shape[2:] == (16, 16)
    weights["pos_embed"] = torch.cat([table[:, :1], grid.flatten(2).permute(0, 2, 1)], 1)
    net.load_state_dict(weights)
    preprocess = transforms.Compose([
        transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    return (
        lambda images: {"features": net(torch.tensor(each(preprocess, images)))},
        "timm",
        net.default_cfg["architecture"],
        net,
    )


def clip(network, directory):
    """Returns open_clip's network, whose parameters have OpenAI's names; it crops and resizes as CMMD's code does."""
    pil = importlib.import_module("PIL.Image")
    net = importlib.import_module("open_clip").create_model("ViT-L-14-336-quickgelu").eval()
    names = set(network.file.used) | set(network.file.unused)
    assert names - set(net.state_dict()) == {"input_resolution", "context_length", "vocab_size"}
    assert set(net.state_dict()) <= names
    net.visual.load_state_dict({name.removeprefix("visual."): value for name, value in tensors(network).items()})
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (net.visual.image_mean, net.visual.image_std))

    def square(image):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side)).resize((336, 336), pil.Resampling.BICUBIC)

    def run(images):
        features = net.visual((channels_first(each(square, images)) / 255.0 - mean) / std)
        return {"features": features / features.norm(dim=-1, keepdim=True)}

    return run, "open_clip_torch", "ViT-L-14-336-quickgelu", net


def agreement(ours, theirs):
    """Returns the largest difference of a feature, relative to the root mean square of all."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.abs(ours - theirs).max() / np.sqrt(np.mean(theirs**2))


def features(directory):
    jax, ours = importlib.import_module("jax"), importlib.import_module("gan_jax.eval")
    makers = {"inception": inception, "dinov2": dinov2, "clip": clip}
    networks = [ours.inception(), ours.inception("bicubic"), ours.dinov2("vitb14"), ours.dinov2("vitl14"), ours.clip()]
    assert [network.name for network in networks] == list(CASES)
    for network in networks:
        run, package, function, net = makers[network.name.split("_")[0]](network, directory)
        params = network.prepare(random_weights.tensors(network.file.used))
        for case, shape in CASES[network.name].items():
            images = random_weights.images(network.name, *shape)
            with torch.no_grad():
                theirs = run(images)
            mine = jax.jit(network.apply)(params, images)
            assert set(mine) == set(theirs)
            for output, value in theirs.items():
                value = value.numpy()
                norms = rounded(np.linalg.norm(value.astype(np.float64), axis=1))
                entry(f"{network.name}_{case}_{output}", package, function, sample=sample(value), norms=norms)
                print(f"{network.name} {case} {output}: {agreement(mine[output], value):.2e}", flush=True)
        real_files(network, net, directory)


def real_files(network, net, directory):
    """Checks that gan_jax reads what PyTorch writes, bit for bit."""
    expected, file = random_weights.tensors(network.file.used), network.file._replace(sha256=None)
    path = pathlib.Path(directory, file.name)

    def check(what, wanted):
        arrays, digest = file.load(directory)
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert all(np.array_equal(arrays[name], value) for name, value in wanted.items()) and set(arrays) == set(wanted)
        print(f"{network.name}: {what} of {path.stat().st_size:,} bytes is read as it was written", flush=True)
        path.unlink()

    if network.name.startswith("inception"):
        for zipped in (True, False):
            torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zipped)
            check(f"torch.save, {'zip' if zipped else 'the old format'},", expected)
    elif network.name.startswith("dinov2"):
        state = net.state_dict()  # ordered, with its metadata
        state["pos_embed"] = torch.tensor(expected["pos_embed"])
        state["mask_token"] = torch.zeros(1, network.dim)
        torch.save(state, path)
        check("torch.save", expected)
    else:
        del net
        scripted = torch.jit.script(tree(expected, file.unused))
        torch.jit.save(scripted, path)
        keep = ("ln_", "embedding")
        wanted = {n: v if any(k in n for k in keep) else np.float32(np.float16(v)) for n, v in expected.items()}
        check("torch.jit.save", wanted)


def tree(arrays, unused):
    """Builds a module with the names and types of OpenAI's file: layer norms and embeddings are float32."""

    class Node(torch.nn.Module):
        def forward(self, x):
            return x

    root = Node()
    for name in [*arrays, *unused]:
        *parents, leaf = name.split(".")
        node = root
        for parent in parents:
            if parent not in dict(node.named_children()):
                node.add_module(parent, Node())
            node = dict(node.named_children())[parent]
        value = torch.tensor(arrays.get(name, np.float32(0.5)))
        if leaf in ("input_resolution", "context_length", "vocab_size"):
            node.register_buffer(leaf, torch.tensor(336))
            continue
        kept = any(part in name for part in ("ln_", "embedding"))
        node.register_parameter(leaf, torch.nn.Parameter(value if kept else value.half()))
    return root


if MAIN:
    with tempfile.TemporaryDirectory() as scratch:
        resizers()
        features(scratch)
    golden = {"command": "python -m tests.golden.make_features", "entries": ENTRIES}
    text = json.dumps(golden, separators=(",", ":")).replace("},", "},\n") + "\n"
    pathlib.Path(__file__).with_name("features.json").write_text(text)
    print(f"{len(ENTRIES)} entries, {len(text)} bytes")
