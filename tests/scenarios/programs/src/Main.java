// SPDX-License-Identifier: GPL-3.0-or-later
import java.io.RandomAccessFile;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

public class Main {
    public static void main(String[] args) throws Exception {
        Path data = Path.of("/srv/w/data");
        try (RandomAccessFile file = new RandomAccessFile(data.resolve("11.txt").toFile(), "rw")) {
            file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 20).put("mapped by java\n".getBytes());
            file.setLength(40);
        }
        for (int i = 12; i < 18; i++) {
            Files.move(data.resolve(i + ".txt"), data.resolve((i + 1) + ".txt"), StandardCopyOption.REPLACE_EXISTING);
        }
        Files.createDirectories(data.resolve("java/made/these"));
        Files.copy(data.resolve("20.txt"), data.resolve("java/made/copy.txt"), StandardCopyOption.COPY_ATTRIBUTES);
        Files.delete(data.resolve("21.txt"));
    }
}
