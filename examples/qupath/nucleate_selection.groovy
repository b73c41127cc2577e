/*
 * Finds nuclei with Nucleate in the selected annotation, or in the whole image where nothing is selected.
 *
 * Open an image, select an annotation, open this file in Automate > Script editor, and choose Run.
 * The nuclei are detections with measurements, children of the annotation; those of an earlier run are replaced.
 * QuPath 0.4 or later. Set the first two lines below once.
 */
import java.awt.geom.AffineTransform
import java.nio.file.Files
import qupath.lib.images.writers.ome.OMEPyramidWriter
import qupath.lib.io.PathIO
import qupath.lib.objects.PathObjectTools
import qupath.lib.regions.ImagePlane
import qupath.lib.regions.RegionRequest

import static qupath.lib.gui.scripting.QPEx.*

// Where the command is: `which nucleate` says it (on Windows: `where nucleate`).
def nucleate = "nucleate"
// fluorescence, brightfield, or the folder of a model of your own.
def model = "fluorescence"
// 1 for the full resolution, 2 for half of it ...
double downsample = 1
// Further options of `nucleate predict`, as ["--channel", "DAPI"].
def options = []

def server = getCurrentServer()
def hierarchy = getCurrentHierarchy()
def selected = getSelectedObject()
def roi = selected?.getROI()
def viewer = getCurrentViewer()
def plane = roi != null ? roi.getImagePlane() : ImagePlane.getPlane(viewer?.getZPosition() ?: 0, viewer?.getTPosition() ?: 0)
def request = RegionRequest.createInstance(server.getPath(), downsample, 0, 0, server.getWidth(), server.getHeight(), plane)
if (roi != null) {
    // An annotation may reach beyond the image.
    request = request.intersect2D(RegionRequest.createInstance(server.getPath(), downsample, roi))
}

def folder = Files.createTempDirectory("nucleate").toFile()
try {
    // Without loss, unlike what QuPath writes by default, and with the pixel size.
    def image = new File(folder, "region.ome.tif")
    OMEPyramidWriter.writeImage(server, image.getPath(), OMEPyramidWriter.CompressionType.ZLIB, request)

    def found = new File(folder, "found")
    def command = [nucleate, "predict", model, image.getPath(), "--out", found.getPath(), "--format", "geojson"] + options
    def process = new ProcessBuilder(command.collect { it.toString() }).redirectErrorStream(true).start()
    process.getOutputStream().close()
    process.getInputStream().eachLine { println(it) }
    if (process.waitFor() != 0) {
        throw new RuntimeException("nucleate could not find nuclei; what it said is above.")
    }

    // From pixels of what was written to pixels of the image.
    def shift = new AffineTransform(downsample, 0, 0, downsample, request.getX(), request.getY())
    def nuclei = PathIO.readObjects(new File(found, "region.geojson"))
            .collect { PathObjectTools.transformObject(it, shift, true, true) }
            .collect { PathObjectTools.updatePlane(it, plane, true, false) }
            .findAll { roi == null || roi.contains(it.getROI().getCentroidX(), it.getROI().getCentroidY()) }

    if (selected == null) {
        hierarchy.addObjects(nuclei)
    } else {
        hierarchy.removeObjects(selected.getChildObjects().findAll { it.isDetection() }, false)
        selected.addChildObjects(nuclei)
    }
    fireHierarchyUpdate()
    println("${nuclei.size()} nuclei")
} finally {
    folder.deleteDir()
}
