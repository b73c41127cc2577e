/*
 * Finds nuclei with Nucleate in every core of a tissue microarray that is not missing.
 *
 * Open a slide, make its grid with TMA > TMA dearrayer, open this file in Automate > Script editor, and choose Run.
 * The nuclei are detections with measurements, children of their core; those of an earlier run are replaced.
 * QuPath 0.4 or later. Set the first two lines below once.
 */
import java.awt.geom.AffineTransform
import java.nio.file.Files
import qupath.lib.images.writers.ome.OMEPyramidWriter
import qupath.lib.io.PathIO
import qupath.lib.objects.PathObjectTools
import qupath.lib.regions.RegionRequest

import static qupath.lib.gui.scripting.QPEx.*

// Where the command is: `which nucleate` says it (on Windows: `where nucleate`).
def nucleate = "nucleate"
// fluorescence, brightfield, or the folder of a model of your own.
def model = "brightfield"
// 1 for the full resolution, 2 for half of it ...
double downsample = 1
// Further options of `nucleate predict`, as ["--channel", "DAPI"].
def options = []

def server = getCurrentServer()
def hierarchy = getCurrentHierarchy()
def cores = getTMACoreList().findAll { !it.isMissing() }
if (cores.isEmpty()) {
    throw new RuntimeException("There are no cores: make the grid first, with TMA > TMA dearrayer.")
}

def folder = Files.createTempDirectory("nucleate").toFile()
try {
    def images = new File(folder, "cores")
    images.mkdir()
    def requests = cores.collect {
        // A core may reach beyond the slide.
        RegionRequest.createInstance(server.getPath(), downsample, it.getROI())
                .intersect2D(0, 0, server.getWidth(), server.getHeight())
    }
    requests.eachWithIndex { request, index ->
        // Without loss, unlike what QuPath writes by default, and with the pixel size.
        def path = new File(images, "core${index}.ome.tif").getPath()
        OMEPyramidWriter.writeImage(server, path, OMEPyramidWriter.CompressionType.ZLIB, request)
    }

    // All cores in one call, so that the model is loaded once.
    def found = new File(folder, "found")
    def command = [nucleate, "predict", model, images.getPath(), "--out", found.getPath(), "--format", "geojson"] + options
    def process = new ProcessBuilder(command.collect { it.toString() }).redirectErrorStream(true).start()
    process.getOutputStream().close()
    process.getInputStream().eachLine { println(it) }
    if (process.waitFor() != 0) {
        throw new RuntimeException("nucleate could not find nuclei; what it said is above.")
    }

    cores.eachWithIndex { core, index ->
        def roi = core.getROI()
        // From pixels of what was written to pixels of the slide.
        def shift = new AffineTransform(downsample, 0, 0, downsample, requests[index].getX(), requests[index].getY())
        def nuclei = PathIO.readObjects(new File(found, "core${index}.geojson"))
                .collect { PathObjectTools.transformObject(it, shift, true, true) }
                .findAll { roi.contains(it.getROI().getCentroidX(), it.getROI().getCentroidY()) }
        hierarchy.removeObjects(core.getChildObjects().findAll { it.isDetection() }, false)
        core.addChildObjects(nuclei)
        println("${core.getName()}: ${nuclei.size()} nuclei")
    }
    fireHierarchyUpdate()
} finally {
    folder.deleteDir()
}
