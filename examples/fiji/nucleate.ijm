// Finds nuclei with Nucleate in the image that is open: a label image, its outlines in the ROI Manager, and the table.
//
// Open an image, drag this file onto Fiji, and choose Run. The image stays as it is. Set the first two lines below once.

nucleate = "nucleate";        // where the command is: `which nucleate` says it (on Windows: `where nucleate`)
model = "fluorescence";       // fluorescence, brightfield, or the folder of a model of your own

if (nImages == 0) exit("Open an image first.");
original = getImageID();
title = getTitle();
folder = getDirectory("temp") + "nucleate-" + d2s(getTime(), 0) + File.separator;
File.makeDirectory(folder);
image = folder + "image.tif";
found = folder + "found";

run("Duplicate...", "title=image duplicate");
saveAs("Tiff", image);
close();

// Further options of `nucleate predict` go to the end, as , "--channel", "DAPI"
said = exec(nucleate, "predict", model, image, "--out", found, "--format", "tif,roi,csv");
labels = found + File.separator + "image_labels.tif";
if (!File.exists(labels)) exit("nucleate could not find nuclei: " + said);

roiManager("reset");
if (File.exists(found + File.separator + "image_rois.zip")) {
	selectImage(original);
	roiManager("open", found + File.separator + "image_rois.zip");
	roiManager("show all without labels");
}
open(found + File.separator + "image.csv");
open(labels);
rename("nuclei of " + title);
getMinAndMax(low, high);
setMinAndMax(0, maxOf(high, 255));
List.setCommands;
if (List.get("glasbey on dark") != "") run("glasbey on dark");   // a colour for each nucleus; in Fiji
