"""The fixed sentences of findings and of the static scan, marked for translation.

They are written where Django is not known (sandbox_runner, policies), stored in English, and looked
up when a page shows them. A sentence that is missing here is shown in English.
"""

from __future__ import annotations

from django.utils.translation import gettext_noop

SENTENCES: tuple[str, ...] = (
    gettext_noop("The network answers the same picture differently when asked again."),
    gettext_noop(
        "Answers are far larger than they differ from picture to picture, so that it cannot be "
        "told whether the network always answers alike."
    ),
    gettext_noop(
        "Training samples were searched for in every file. No search proves that none is "
        "there: compressed or encrypted copies are not found."
    ),
    gettext_noop("Pieces of training samples are stored in the file, byte for byte."),
    gettext_noop("Rows of training samples stand in the file, rescaled or in another type."),
    gettext_noop("A few numbers of the file run like a row of a training sample."),
    gettext_noop("A tensor, viewed as a picture, is a training sample."),
    gettext_noop("A tensor, viewed as a picture, is like a training sample."),
    gettext_noop("Numbers of the file follow a training sample, noisy or coarse as they may be."),
    gettext_noop("Numbers of the file follow a training sample a little."),
    gettext_noop("A part of a tensor runs as smoothly as a picture, and the rest does not."),
    gettext_noop("The network's process did not start."),
    gettext_noop("build() failed when it was called with the manifest's [config] and no data."),
    gettext_noop("The weights could not be loaded into the network."),
    gettext_noop("The network did not take the weights that it was given."),
    gettext_noop("forward() failed on prepared pictures of [config] size."),
    gettext_noop("The network did not answer in time."),
    gettext_noop("The network's process ended."),
    gettext_noop("The network's process broke the conversation."),
    gettext_noop("The network's answers are not one number a picture, or one a class."),
    gettext_noop("The network's answers are not finite numbers."),
    gettext_noop("The network could not be asked."),
    gettext_noop("The graph does not answer as the declared network does with the same weights."),
    gettext_noop(
        "onnxruntime does not run the graph on pictures of [config] size, any number of them."
    ),
    gettext_noop(
        "The network does not answer, so that nobody knows whether the graph is the network's."
    ),
    gettext_noop("What the model's graph holds beside its tensors; it is counted with them."),
    gettext_noop("Weights leave only with the network they belong to: name it in [model] build."),
    gettext_noop(
        "There are no official metrics. Name the task in [config]: size = [height, "
        "width], task and positive_label."
    ),
    gettext_noop("There are no official metrics. The datasets have no sealed split."),
    gettext_noop("There are no official metrics. The sealed split is too large at this size."),
    gettext_noop("There are no official metrics. The sealed split could not be prepared."),
    gettext_noop("There is something that is not a plain file of a plain name, or too much."),
    gettext_noop("The files could not be examined; nothing of them may leave."),
    gettext_noop("Some sealed pictures could not be read, or are of a class not in training."),
    gettext_noop("The weights hold the beginning of another file."),
    gettext_noop("The weights hold readable text."),
    gettext_noop("The weights hold compressed bytes that can be unpacked."),
    gettext_noop("The lowest bits of a tensor are not spread as training spreads them."),
    gettext_noop("A tensor of real numbers takes few different values, as bytes do."),
    gettext_noop("A tensor of real numbers holds whole numbers only."),
    gettext_noop("A tensor of 8 bits is spread as evenly as compressed or encrypted bytes."),
    gettext_noop("One number stands again and again among real numbers."),
    gettext_noop("The exponents of a tensor spread further than training spreads them."),
    gettext_noop(
        "The numbers of a tensor jump at powers of two, as where bits of their mantissas "
        "or exponents were replaced."
    ),
    gettext_noop(
        "Rows or columns of tensors, or small tensors, do not influence what the network "
        "answers: leave them out, or set them to 0."
    ),
    gettext_noop(
        "Counters beside the weights have many different values, or such as nothing counts to; "
        "those of one training agree."
    ),
    gettext_noop("The network answers too slowly to ask about enough rows and columns."),
    gettext_noop(
        "Tensors do not influence what the network answers: leave them out, or set them to 0."
    ),
    gettext_noop(
        "The policy asks for weights to be rewritten before they leave, and these could "
        "not be: the other findings say why."
    ),
    gettext_noop(
        "The weights were rewritten with noise. What hidden bits they can still carry at most."
    ),
    gettext_noop("A decoder got more out of the rewritten weights than the bound allows."),
    gettext_noop("What rewriting cost the network could not be measured on the sealed split."),
    gettext_noop("Rewriting cost the network more than the policy allows without a reviewer."),
    gettext_noop("The declared network has tensors that the file lacks."),
    gettext_noop("A tensor has another shape than the declared network's."),
    gettext_noop("A tensor has another type than the declared network's."),
    gettext_noop("The weights could hold far more than the policy allows for so few samples."),
    gettext_noop("The training set is small, so the model may describe single subjects."),
    gettext_noop("The weights are large for the number of samples."),
    gettext_noop("What the weights could hold of each sample."),
    gettext_noop("The file holds tensors that the declared network does not have."),
    gettext_noop("The weights hold values that are not finite; a trained network has none."),
    gettext_noop("The weights hold large tensors of whole numbers."),
    gettext_noop("Full precision leaves room for hidden bits that no scan can tell from noise."),
    gettext_noop(
        "The lowest bits of so many numbers could hide more than the policy bears. Let the "
        "weights be rewritten, or reviewers judge."
    ),
    gettext_noop("The metrics can say more than the policy's ordinary amount."),
    gettext_noop("The job wrote metrics that its manifest does not declare; they were left out."),
    gettext_noop("Numbers that were not finite or outside the declared range were left out."),
    gettext_noop("What the metrics can say."),
    gettext_noop("Small counts were suppressed."),
    gettext_noop("The job did not write this metric."),
    gettext_noop("The configuration is not the one of the manifest."),
    gettext_noop(
        "The configuration is spelled in an unusual way, which could carry data. "
        "Write it with glovebox.save_config or json.dump."
    ),
    gettext_noop("There are files that the manifest does not declare."),
    gettext_noop("The job left no file of this kind."),
    gettext_noop("The policy does not let this kind of file leave."),
    gettext_noop("The file is larger than the policy allows."),
    gettext_noop("uses the network, which does not exist inside"),
    gettext_noop("starts other programs"),
    gettext_noop("calls native code directly"),
    gettext_noop("maps memory directly"),
    gettext_noop("reads or writes pickles, which run code when they are read"),
    gettext_noop("reads or writes code objects"),
    gettext_noop("packs data"),
    gettext_noop("encodes data"),
    gettext_noop("runs text as code"),
    gettext_noop("makes code from text"),
    gettext_noop("imports a module whose name is computed"),
    gettext_noop("starts other processes"),
    gettext_noop("replaces itself by another program"),
    gettext_noop("makes links"),
    gettext_noop("makes pipes"),
    gettext_noop("makes devices"),
    gettext_noop("is compiled code, which cannot be read"),
    gettext_noop("is large for a submission"),
    gettext_noop("is too large to be read as code"),
    gettext_noop("is not valid Python"),
    gettext_noop("is nested too deeply to be read"),
    gettext_noop("reaches into the interpreter"),
    gettext_noop("Whether subjects of the training can be told cannot be measured: too few."),
    gettext_noop("Subjects of the training can be told from others."),
    gettext_noop("Subjects of the training were not told from others with certainty."),
    gettext_noop("Not measurable: how many subjects are found where few others are taken for one."),
    gettext_noop("Not measurable: this task has no answer to a picture that a loss is made of."),
    gettext_noop("Some subjects of the training stand out where few others are taken for one."),
    gettext_noop("Few subjects of the training stand out where few others are taken for one."),
    gettext_noop("Subjects of the validation split look like subjects of the training."),
    gettext_noop("The network answers held-out pictures differently when members are among them."),
    gettext_noop("Whether the network shows its training cannot be measured: too few subjects."),
    gettext_noop(
        "Pictures that the network gives are nearer to its training than to other people's."
    ),
    gettext_noop("Pictures that the network gives were not nearer to its training with certainty."),
    gettext_noop("No table of the weights has the width of a layer's answers."),
    gettext_noop("Rows of the weights are what the network makes of training samples."),
    gettext_noop("Rows of the weights are no nearer to training samples than to others."),
    gettext_noop("The weights, run backwards, give training samples."),
    gettext_noop("The weights, run backwards, give training samples no better than others."),
    gettext_noop("The network did not answer this attack as it answers otherwise."),
    gettext_noop("There was no time to finish this attack; nothing is known from it."),
    gettext_noop(
        "No differential privacy is guaranteed: what a submission's own training claims of "
        "it cannot be checked."
    ),
    gettext_noop(
        "Private training was asked for, and there is no record that the trusted trainer made "
        "these weights."
    ),
    gettext_noop(
        "The trusted trainer made these weights with noise: epsilon and delta hold for each "
        "subject of the training, and for the weights alone."
    ),
)
