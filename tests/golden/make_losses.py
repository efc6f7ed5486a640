"""Writes losses.json: values of independent packages for the losses, penalties and filters that gan_jax has too.

test_losses.py compares gan_jax with that file, and needs none of the packages. To make it again, with Python 3.11:

    python3.11 -m venv venv
    venv/bin/pip install torch==2.13.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 dcor==0.7 PyWavelets==1.9.0 \
        geomloss==0.3.1 torchmetrics==1.9.0 pytorch-metric-learning==2.9.0 tensorflow==2.21.0 tf-keras==2.21.0 \
        tensorflow-probability==0.25.0 kornia==0.9.0 monai==1.6.1 matplotlib einops einx loguru beartype tqdm pillow
    venv/bin/pip install --no-deps torchgan==0.1.0 vegans==0.4.0 torch-mimicry==0.1.16 stylegan2-pytorch==1.9.0 \
        lightweight-gan==1.2.1 gigagan-pytorch==0.3.0 magvit2-pytorch==0.5.1 taming-transformers-rom1504==0.0.6 \
        basicsr==1.4.2 mmgen==0.7.3 parallel-wavegan==0.6.1 speechbrain==1.1.2 lpips==0.1.4 piq==0.8.0 \
        tensorflow-gan==2.1.0 vector-quantize-pytorch==1.32.0 torch-einops-utils
    venv/bin/python tests/golden/make_losses.py

The functions that are called are the packages' own. Parts that the losses do not use are replaced: the modules in
`STUBS` by empty ones (some packages insist on torchvision, mmcv or TensorBoard), and the `__init__` of the packages in
`BARE` by nothing, so that submodules can be imported alone (that of tensorflow-gan needs tf.estimator, which TensorFlow
no longer has). Random numbers are replaced by those in the inputs; the test does the same with gan_jax's.
"""

import functools
import importlib
import importlib.abc
import importlib.metadata
import json
import pathlib
import sys
import types
from unittest import mock

import numpy as np

torch = importlib.import_module("torch") if __name__ == "__main__" else None  # not under pytest

# fmt: off
STUBS = """accelerate adabelief_pytorch addict aim apex click cv2 ema_pytorch fire gateloop_transformer hyperpyyaml yaml
librosa lmdb mmcv numerize open_clip pandas pytorch_custom_utils pytorch_warmup retry skimage soundfile tensorboard wget
taylor_series_linear_attention tensorboardX torchaudio torchvision transformers visdom x_transformers"""
BARE = """basicsr basicsr.losses gigagan_pytorch lightweight_gan magvit2_pytorch mmgen mmgen.models mmgen.models.losses
parallel_wavegan speechbrain speechbrain.lobes speechbrain.lobes.models stylegan2_pytorch tensorflow_gan
tensorflow_gan.python tensorflow_gan.python.losses torch_mimicry torch_mimicry.modules torch_mimicry.nets
torch_mimicry.nets.wgan_gp vegans vegans.models vegans.models.unconditional"""


class _Meta(type):
    def __getattr__(cls, name):
        return _anything(name)


def _anything(name):
    """Returns a class that can be inherited from and called, and that has any attribute."""
    if name.startswith("__"):
        raise AttributeError(name)
    body = {"__init__": lambda self, *a, **k: None, "__getattr__": lambda self, name: mock.MagicMock()}
    return _Meta(name, (), body)


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        stub = name.split(".")[0] in STUBS.split() or name == "torch.utils.tensorboard"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if stub else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = _anything
        return module

    def exec_module(self, module):
        pass


def replace_modules():
    sys.meta_path.insert(0, _Stubs())
    for name in BARE.split():
        path = sys.modules[name.rpartition(".")[0]].__path__ if "." in name else None
        module = types.ModuleType(name)
        module.__path__ = list(importlib.machinery.PathFinder.find_spec(name, path).submodule_search_locations)
        sys.modules[name] = module


def load(name):
    """Imports a module as if there were a GPU, because two packages refuse to work without one."""
    with mock.patch("torch.cuda.is_available", lambda: True):
        return importlib.import_module(name)


RNG = np.random.default_rng(0)


def draw(*shape, scale=1.0):
    """Draws normal numbers that float32 represents exactly."""
    return np.round(RNG.normal(size=shape) * scale * 1024) / 1024


INPUTS = {
    "real": draw(8, scale=2), "fake": draw(8, scale=2), "real_map": draw(4, 2, 3), "fake_map": draw(4, 2, 3),
    "extreme": np.array([-30.0, -20.0, 5.0]), "energy_real": np.abs(draw(8)),
    "energy_fake": np.abs(draw(8, scale=3)), "images": draw(3, 2, 3, 3), "fakes": draw(3, 2, 3, 3),
    "critic": draw(2, 3, 3), "alpha": np.array([0.25, 0.5, 0.875]), "vectors": draw(1, 6),
    "critic_vector": draw(6), "uniform": np.full((1, 6), 0.75), "class_logits": draw(6, 5, scale=2),
    "fake_class_logits": draw(6, 5, scale=2), "label": np.array([0, 3, 1, 3, 4, 0]), "twice_logits": draw(6, 10),
    "mean": draw(6, 3), "log_std": draw(6, 3, scale=0.25), "code": draw(6, 3), "features_real": draw(6, 4),
    "features_fake": draw(6, 4) + 0.5, "embedding": draw(6, 4), "proxy": draw(6, 4), "layer_1": draw(2, 4, 3, 3),
    "layer_2": draw(2, 6, 2, 2), "target_1": draw(2, 4, 3, 3), "target_2": draw(2, 6, 2, 2),
    "weight_1": np.abs(draw(4)), "weight_2": np.abs(draw(6)), "w": draw(3, 2, 4), "synthesis": draw(4, 8),
    "path_noise": draw(3, 2, 2, 2), "path_mean": np.array(0.5), "kernel": draw(6, 4),
    "pixels": draw(2, 3, 8, 8, scale=0.5), "uniforms": np.array([[0.125, 0.75], [0.25, 0.875], [0.5, 0.0625]]),
    "shifts": np.array([[1, -1], [0, 1]]), "centers": np.array([[2, 7], [8, 3]]), "angle": np.array([0.75, -2.0]),
    "ratio": np.array([0.1, 0.5, 1.0, 2.5]),
}
T, ENTRIES, PACKAGES = {}, {}, {}


def numbers(value):
    if isinstance(value, (list, tuple)):
        return [numbers(one) for one in value]
    return np.asarray(value.detach() if hasattr(value, "detach") else value, np.float64).tolist()


def entry(name, function, output):
    """Stores what a function, `module:name`, returned."""
    package = PACKAGES[function.partition(":")[0].partition(".")[0]][0]
    version = importlib.metadata.version(package)
    ENTRIES[name] = {"package": package, "version": version, "function": function, "output": numbers(output)}


def keep(name, function, *arguments, init=None, then=lambda output: output, **options):
    """Calls a function, or an object that is created with the arguments `init`, and stores the output."""
    module, _, attribute = function.partition(":")
    called = functools.reduce(getattr, attribute.split("."), load(module))
    entry(name, function, then((called if init is None else called(**init))(*arguments, **options)))


def drawing(name, values):
    """Makes a random function of torch return the given tensors, one after the other."""
    return mock.patch(f"torch.{name}", side_effect=list(values))


def critic(x):
    """Computes one logit per image: sum w tanh(x)."""
    return (T["critic"] * torch.tanh(x)).sum(dim=(1, 2, 3))


def adversarial():
    r, f, each = T["real"], T["fake"], {"reduction": "none"}
    for name, kind in (("minimax", "Minimax"), ("least_squares", "LeastSquares"), ("wasserstein", "Wasserstein")):
        keep(f"torchgan_{name}_d", f"torchgan.losses:{kind}DiscriminatorLoss", r, f, init=each)
        keep(f"torchgan_{name}_g", f"torchgan.losses:{kind}GeneratorLoss", f, init=each)
    keep("torchgan_saturating_g", "torchgan.losses:MinimaxGeneratorLoss", f, init={**each, "nonsaturating": False})
    energies, margin = (T["energy_real"], T["energy_fake"]), {**each, "margin": 2.0}
    keep("torchgan_energy_d", "torchgan.losses:EnergyBasedDiscriminatorLoss", *energies, init=margin)
    keep("torchgan_energy_g", "torchgan.losses:EnergyBasedGeneratorLoss", energies[1], init=each)
    mimicry, taming = "torch_mimicry.modules.losses", "taming.modules.losses.vqperceptual"
    keep("mimicry_minimax_d", f"{mimicry}:minimax_loss_dis", f[:, None], r[:, None])
    keep("mimicry_hinge_d", f"{mimicry}:hinge_loss_dis", f, r)
    keep("mimicry_hinge_g", f"{mimicry}:hinge_loss_gen", f)
    keep("mimicry_wasserstein_d", f"{mimicry}:wasserstein_loss_dis", r, f)
    x = T["extreme"].clone().requires_grad_()
    keep("mimicry_ns_gradient", f"{mimicry}:ns_loss_gen", x, then=lambda loss: torch.autograd.grad(loss, x)[0])
    keep("stylegan2_hinge_d", "stylegan2_pytorch.stylegan2_pytorch:hinge_loss", f, r)
    keep("stylegan2_hinge_g", "stylegan2_pytorch.stylegan2_pytorch:gen_hinge_loss", f, r)
    keep("lightweight_hinge_d", "lightweight_gan.lightweight_gan:hinge_loss", r, f)
    keep("lightweight_hinge_g", "lightweight_gan.lightweight_gan:gen_hinge_loss", f, r)
    keep("gigagan_hinge_d", "gigagan_pytorch.gigagan_pytorch:discriminator_hinge_loss", r, f)
    keep("magvit2_hinge_d", "magvit2_pytorch.magvit2_pytorch:hinge_discr_loss", f, r)
    keep("speechbrain_hinge_g", "speechbrain.lobes.models.HifiGAN:HingeGLoss", f, init={})
    keep("speechbrain_mse_d", "speechbrain.lobes.models.HifiGAN:MSEDLoss", f, r, init={}, then=lambda loss: loss[0])
    for kind in ("mse", "hinge"):
        function = "parallel_wavegan.losses:DiscriminatorAdversarialLoss"
        keep(f"wavegan_{kind}_d", function, f, r, init={"loss_type": kind}, then=sum)
    keep("taming_hinge_d", f"{taming}:hinge_d_loss", r, f)
    keep("taming_vanilla_d", f"{taming}:vanilla_d_loss", r, f)
    for kind in ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"):
        loss, function = load("basicsr.losses.gan_loss").GANLoss(kind), f"basicsr.losses.gan_loss:GANLoss('{kind}')"
        entry(f"basicsr_{kind}_d", function, loss(r, True, True) + loss(f, False, True))
        entry(f"basicsr_{kind}_g", function, loss(f, True))
    for kind in ("hinge", "least_squares", "bce"):
        loss = load("monai.losses").PatchAdversarialLoss(criterion=kind)
        function = f"monai.losses:PatchAdversarialLoss('{kind}')"
        entry(f"monai_{kind}_d", function, loss(r, True, True) + loss(f, False, True))
    mse = {"Generator": torch.nn.MSELoss(), "Adversary": torch.nn.MSELoss()}  # a model without networks
    model = types.SimpleNamespace(predict=lambda x: x, generate=lambda z: f, feature_layer=None, loss_functions=mse)
    module = "vegans.models.unconditional"
    for player in ("Adversary", "Generator"):
        function = f"{module}.AbstractGAN1v1:AbstractGAN1v1._calculate_{player.lower()}_loss"
        name = f"vegans_lsgan_{'dg'[player == 'Generator']}"
        keep(name, function, model, r, None, then=lambda output, player=player: output[player])
    model.m, model.device, model.predict = 6.0, "cpu", torch.zeros_like  # its energy is now the mean square
    function = f"{module}.EBGAN:EBGAN._calculate_adversary_loss"
    keep("vegans_ebgan_d", function, model, r / 2, None, then=lambda output: output["Adversary"])


def penalties():
    x, fakes, alpha = T["images"].clone().requires_grad_(), T["fakes"], T["alpha"].reshape(3, 1, 1, 1)
    real, mmgen = T["images"], "mmgen.models.losses.disc_auxiliary_loss"
    keep("basicsr_r1", "basicsr.losses.gan_loss:r1_penalty", critic(x), x)
    for package in ("stylegan2", "gigagan", "magvit2"):
        keep(f"{package}_r1", f"{package}_pytorch.{package}_pytorch:gradient_penalty", x, critic(x))
    for mode in ("HWC", "pixel"):
        keep(f"mmgen_r1_{mode}", f"{mmgen}:r1_gradient_penalty_loss", critic, real, norm_mode=mode)
        with drawing("rand", [alpha]):
            keep(f"mmgen_gp_{mode}", f"{mmgen}:gradient_penalty_loss", critic, real, fakes, norm_mode=mode)
    with drawing("rand", [alpha]):
        keep("basicsr_gp", "basicsr.losses.gan_loss:gradient_penalty_loss", critic, real, fakes)
    three = [torch.cat([i, i[:, :1]], 1) for i in (real, fakes)]  # it insists on three channels
    net = types.SimpleNamespace(forward=lambda x: critic(x[:, :2]) + x[:, 2].sum((1, 2)))
    function = "torch_mimicry.nets.wgan_gp.wgan_gp_base:WGANGPBaseDiscriminator.compute_gradient_penalty_loss"
    with drawing("rand", [T["alpha"][:, None]]):
        keep("mimicry_gp", function, net, *three, gp_scale=1.0)
    between = (real + (1 - alpha) * (fakes - real)).requires_grad_()
    keep("torchgan_gp", "torchgan.losses:WassersteinGradientPenalty", between, critic(between), init={})
    net, penalty = types.SimpleNamespace(label_type="none"), load("torchgan.losses").DraganGradientPenalty()
    judge = mock.Mock(side_effect=lambda x: (T["critic_vector"] * torch.tanh(x)).sum(1), label_type="none")
    with drawing("rand", [torch.full((1, 6), 0.75).requires_grad_(), T["uniform"]]):
        penalty = penalty.train_ops(net, judge, mock.Mock(), T["vectors"], "cpu")
    entry("torchgan_dragan", "torchgan.losses:DraganGradientPenalty.train_ops", penalty)

    w = T["w"].clone().requires_grad_()
    images = torch.tanh(w.sum(1) @ T["synthesis"] + w[:, 0].sum(1)[:, None]).reshape(3, 2, 2, 2)
    with drawing("randn_like", [T["path_noise"]]), drawing("randn", [T["path_noise"]]):
        keep("basicsr_path", "basicsr.losses.gan_loss:g_path_regularize", images, w, T["path_mean"])
        keep("stylegan2_path", "stylegan2_pytorch.stylegan2_pytorch:calc_pl_lengths", w, images)
    kernel, layer = T["kernel"].T.contiguous(), torch.nn.Linear(6, 4, bias=False)
    keep("vq_orthogonal", "vector_quantize_pytorch.vector_quantize_pytorch:orthogonal_loss_fn", kernel[None])
    layer.weight.data, function = kernel, "torch:nn.utils.parametrizations.orthogonal"
    keep("torch_orthogonal", function, layer, then=lambda layer: layer.weight.T)


def tensorflow():
    tf, tfp, module = load("tensorflow"), load("tensorflow_probability"), "tensorflow_gan.python.losses.losses_impl"
    v1 = tf.compat.v1

    def tensor(name):
        return tf.constant(INPUTS[name], tf.int32 if name == "label" else tf.float32)

    def run(name, function, *arguments, **options):
        with tf.Graph().as_default(), v1.Session() as session:  # its penalty refuses eager execution
            arguments = [tensor(a) if isinstance(a, str) else a() for a in arguments]
            keep(f"tfgan_{name}", f"{module}:{function}", *arguments, then=session.run, **options)

    for name in ("minimax", "modified", "least_squares", "wasserstein"):
        smoothing = {"label_smoothing": 0.0} if name in ("minimax", "modified") else {}
        run(f"{name}_d", f"{name}_discriminator_loss", "real", "fake", **smoothing)
        run(f"{name}_g", f"{name}_generator_loss", "fake")
    run("smoothed_d", "minimax_discriminator_loss", "real", "fake")
    run("hinge_d", "wasserstein_hinge_discriminator_loss", "real", "fake")
    for player in ("discriminator", "generator"):
        run(f"relativistic_{player[0]}", f"relativistic_{player}_loss", "real", "fake")
        run(f"relativistic_map_{player[0]}", f"relativistic_{player}_loss", "real_map", "fake_map")
    heads = ("class_logits", "fake_class_logits", lambda: tf.one_hot(tensor("label"), 5))
    run("acgan_d", "acgan_discriminator_loss", *heads)
    run("acgan_g", "acgan_generator_loss", *heads[1:])
    run("cycle", "cycle_consistency_loss", "images", "fakes", "fakes", "images")
    judge = lambda: lambda x, _: tf.reduce_sum(tensor("critic") * tf.tanh(x), (1, 2, 3))  # noqa: E731
    with mock.patch("tensorflow.random.uniform", lambda shape: tf.reshape(tensor("alpha"), shape)):
        for name, options in (("", {}), ("_target", {"target": 2.0}), ("_one_sided", {"one_sided": True})):
            arguments = ("images", "fakes", lambda: None, judge, lambda: "scope")
            run(f"gp{name}", "wasserstein_gradient_penalty", *arguments, **options)
    normal = lambda: tfp.distributions.MultivariateNormalDiag(tensor("mean"), tf.exp(tensor("log_std")))  # noqa: E731
    run("mutual_information", "mutual_information_penalty", lambda: [tensor("label"), tensor("code")],
        lambda: [tfp.distributions.Categorical(logits=tensor("class_logits")), normal()])
    with tf.Graph().as_default(), v1.Session() as session:
        weight = v1.get_variable("w", initializer=tensor("kernel"))
        main, fooling = tf.reduce_sum(weight**2), tf.reduce_sum(tf.tanh(weight))
        session.run(v1.global_variables_initializer())
        keep("tfgan_adaptive", f"{module}:combine_adversarial_loss", main, fooling, gradient_ratio=1.0,
             variables=[weight], then=lambda total: session.run((total - main) / fooling))
    for name in ("kl_forward", "kl_reverse", "pearson", "squared_hellinger", "jensen_shannon", "gan"):
        function = "jensen_shannon" if name == "gan" else name  # the GAN's divergence is not self-normalised
        options = {"self_normalized": True} if name == "jensen_shannon" else {}
        f = functools.partial(getattr(tfp.vi, function), **options)
        figures = tfp.math.value_and_gradient(lambda u, f=f: f(tf.math.log(u)), tf.constant(INPUTS["ratio"]))
        entry(f"tfp_{name}", f"tensorflow_probability:vi.{function}", [i.numpy() for i in figures])


def auxiliary():
    logits, label, variance, each = T["class_logits"], T["label"], torch.exp(2 * T["log_std"]), {"reduction": "none"}
    keep("torch_cross_entropy", "torch:nn.functional.cross_entropy", logits, label, **each)
    keep("torchgan_acgan", "torchgan.losses:AuxiliaryClassifierDiscriminatorLoss", logits, label, init={})
    both = torch.cat([T["twice_logits"]] * 2), torch.cat([label, label + 5])
    keep("torch_adc", "torch:nn.functional.cross_entropy", *both, **each, then=lambda loss: loss.reshape(2, 6))
    hinge = functools.partial(load("sklearn.metrics").hinge_loss, labels=range(5))
    hinges = [hinge([y], row[None]) for y, row in zip(INPUTS["label"], INPUTS["class_logits"], strict=True)]
    entry("sklearn_hinge", "sklearn.metrics:hinge_loss", hinges)
    keep("torchmetrics_hinge", "torchmetrics.functional.classification:multiclass_hinge_loss", logits, label, 5)
    keep("torch_multi_margin", "torch:nn.MultiMarginLoss", logits, label, init=each)
    keep("torch_gaussian", "torch:nn.GaussianNLLLoss", T["mean"], T["code"], variance, init={**each, "full": True})
    heads = torch.distributions.Categorical(logits=logits), torch.distributions.Normal(T["mean"], T["log_std"].exp())
    function = "torchgan.losses:MutualInformationPenalty"
    keep("torchgan_mutual_information", function, label, T["code"], *heads, init={})
    function = "vegans.utils.losses:NormalNegativeLogLikelihood"
    keep("vegans_gaussian", function, T["code"], T["mean"], variance, eps=0.0, init={})
    nca, loss = load("pytorch_metric_learning.losses").NCALoss(softmax_scale=1.0), []
    for i in range(6):  # example i, twice, against its proxy and the other examples
        order = [i, *(j for j in range(6) if j != i)]
        reference = torch.cat([T["proxy"][i : i + 1], T["embedding"][order[1:]]])
        loss.append(nca(T["embedding"][[i, i]], label[[i, i]], ref_emb=reference, ref_labels=label[order]))
    entry("metric_nca", "pytorch_metric_learning.losses:NCALoss", loss)
    keep("torch_topk", "torch:topk", T["fake"], 3, then=lambda output: -output[0].mean())
    kernel, model = T["kernel"].clone().requires_grad_(), types.SimpleNamespace(discriminator_weight=0.8)
    function = "taming.modules.losses.vqperceptual:VQLPIPSWithDiscriminator.calculate_adaptive_weight"
    keep("taming_adaptive", function, model, (kernel**2).sum(), torch.tanh(kernel).sum(), last_layer=kernel)

    x, y = T["features_real"], T["features_fake"]
    for kind in "uv":
        options = {"estimation_stat": f"{kind}_statistic"}
        keep(f"dcor_energy_{kind}", "dcor:energy_distance", x.numpy(), y.numpy(), **options)
    for kind in ("energy", "gaussian"):
        keep(f"geomloss_{kind}", "geomloss:SamplesLoss", x, y, init={"loss": kind, "blur": 2.0})
    kernel = load("sklearn.gaussian_process.kernels").RationalQuadratic
    kernel = kernel(alpha=0.2) + kernel(alpha=0.5) + kernel(alpha=1) + kernel(alpha=2) + kernel(alpha=5)
    grams = [torch.tensor(kernel(a.numpy(), b.numpy())) for a, b in ((x, x), (x, y), (y, y))]  # by scikit-learn
    keep("torchmetrics_mmd", "torchmetrics.image.kid:maximum_mean_discrepancy", *grams)
    keep("piq_mmd_biased", "piq.kid:_mmd2_and_variance", *grams, mmd_est="biased")
    function = "sklearn.metrics.pairwise:paired_euclidean_distances"
    keep("sklearn_consistency", function, x, y, then=np.square)


def reconstruction():
    first, second = [T["layer_1"], T["layer_2"]], [T["target_1"], T["target_2"]]
    a, b, lpips = first[0], second[0], load("lpips")
    keep("torch_l1_loss", "torch:nn.functional.l1_loss", a, b, reduction="none")
    keep("torch_mse_loss", "torch:nn.functional.mse_loss", a, b, reduction="none")
    keep("kornia_charbonnier", "kornia.losses:charbonnier_loss", a, b)
    keep("basicsr_charbonnier", "basicsr.losses.basic_loss:charbonnier_loss", a, b, eps=0.25, reduction="none")
    options = {"include_final_outputs": True}
    keep("wavegan_features", "parallel_wavegan.losses:FeatureMatchLoss", [first], [second], init=options)
    keep("speechbrain_features", "speechbrain.lobes.models.HifiGAN:MelganFeatureLoss", [first], [second], init={})
    keep("torchgan_features", "torchgan.losses:FeatureMatchingGeneratorLoss", a.mean(0), b.mean(0), init={})
    model = lpips.LPIPS.__new__(lpips.LPIPS)  # without a network: the features are given
    torch.nn.Module.__init__(model)
    model.scaling_layer, model.net = (lambda x: x), types.SimpleNamespace(forward=lambda x: x)
    model.L, model.spatial, model.version, model.lins = 2, False, "0.0", [lpips.NetLinLayer(4), lpips.NetLinLayer(6)]
    for head, weight in zip(model.lins, (T["weight_1"], T["weight_2"]), strict=True):
        head.model[0].weight.data = weight.reshape(1, -1, 1, 1)
    for name, model.lpips in (("lpips", True), ("baseline", False)):
        keep(f"lpips_{name}", "lpips:LPIPS.forward", model, first, second)
    net = torch.nn.Sequential(torch.nn.Identity())
    options = {"feature_extractor": net, "layers": ["0"], "mean": [0.0], "std": [1.0], "reduction": "none"}
    keep("piq_content", "piq:ContentLoss", a, b, init=options)


def augmentation():
    turn, pixels = load("scipy.spatial.transform").Rotation, T["pixels"]
    for name in ("sym2", "sym6"):
        keep(f"pywt_{name}", "pywt:Wavelet", name, then=lambda wavelet: wavelet.dec_lo)
    keep("pywt_bands", "pywt:mra", np.eye(64)[32], "sym2", 3, transform="swt")
    turns = turn.from_rotvec(INPUTS["angle"][:, None] * np.ones(3) / np.sqrt(3))
    turned = [turn.apply(p.reshape(3, -1).T).T.reshape(3, 8, 8) for turn, p in zip(turns, pixels, strict=True)]
    entry("scipy_hue", "scipy.spatial.transform:Rotation.from_rotvec", turned)
    module = "lightweight_gan.diff_augment"
    with drawing("rand", T["uniforms"].reshape(3, 2, 1, 1, 1)):
        keep("lightweight_color", f"{module}:DiffAugment", pixels, ["color"])
    for name in ("translation", "cutout"):
        integers = T["shifts" if name == "translation" else "centers"]
        with drawing("randint", integers.reshape(2, 2, 1, 1)):
            keep(f"lightweight_{name}", f"{module}:rand_{name}", pixels)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    types_of = {"i": torch.int64, "f": torch.float64}
    T.update((name, torch.tensor(value, dtype=types_of[value.dtype.kind])) for name, value in INPUTS.items())
    PACKAGES = importlib.metadata.packages_distributions()
    replace_modules()
    for group in (adversarial, penalties, tensorflow, auxiliary, reconstruction, augmentation):
        group()
    inputs = {name: numbers(value) for name, value in INPUTS.items()}
    golden = {"command": "python tests/golden/make_losses.py", "inputs": inputs, "entries": ENTRIES}
    text = json.dumps(golden, separators=(",", ":")).replace("},", "},\n") + "\n"
    pathlib.Path(__file__).with_name("losses.json").write_text(text)
    print(f"{len(ENTRIES)} entries of {len({e['package'] for e in ENTRIES.values()})} packages, {len(text)} bytes")
